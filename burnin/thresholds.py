"""Where the rules of a burn-in draw the line, each with its origin; a user's file can move any of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import Field

from burnin.rules.gpu_health import ECC_CORRECTED_MAX, HELD_BACK_SHARE_MAX
from burnin.rules.speed import BUSY_PCT_MIN, RATIO_MIN
from probes.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """One line per rule."""

    # Of the siblings' median; see burnin/rules/speed.py.
    sibling_ratio_min: float
    busy_pct_min: float
    # Of the typical figure. 8192 cubed on random data reaches 85 % (GB200: 1550 of 1822) to 99 % of the best
    # shape, and healthy GPUs differ by 5 % (gpu-fryer's README and ml-engineering's tables, read 2026-08).
    tflops_share_min: float = 0.80
    # Of the typical figure, which DCGM's memory_bandwidth plug-in measured and takes 75 % of (read 2026-07).
    hbm_share_min: float = 0.75
    # Of the enforced power limit, in the median under load. Below nothing was shown at full power.
    power_share_min: float = 0.90
    # The same where no stage was made to draw power: DCGM's targeted_power accepts 75 % (read 2026-07).
    power_share_min_of_matmul: float = 0.75
    # Of the line rate of all NVLinks: what comes slower took PCIe, or lost half of its links on the way.
    peer_line_share_min: float = 0.5
    held_back_share_max: float = HELD_BACK_SHARE_MAX
    ecc_corrected_max: int = ECC_CORRECTED_MAX
    mixed_firmware: Literal["fail", "note"] = "fail"


class ThresholdsSpec(Spec):
    """What a user's file may say; the rest stays as it is."""

    sibling_ratio_min: float | None = Field(default=None, gt=0, le=1, description="Of the siblings' median.")
    busy_pct_min: float | None = Field(default=None, ge=0, le=100, description="Per cent of the time.")
    tflops_share_min: float | None = Field(default=None, gt=0, le=1.5, description="Of the typical TFLOPS.")
    hbm_share_min: float | None = Field(default=None, gt=0, le=1.5, description="Of the typical bandwidth.")
    power_share_min: float | None = Field(
        default=None, ge=0, le=1, description="Of the enforced power limit."
    )
    power_share_min_of_matmul: float | None = Field(
        default=None, ge=0, le=1, description="The same in the matmul stage, where no power stage runs."
    )
    peer_line_share_min: float | None = Field(
        default=None, gt=0, le=1, description="Of the NVLinks' line rate."
    )
    held_back_share_max: float | None = Field(default=None, ge=0, le=1, description="Of the run's time.")
    ecc_corrected_max: int | None = Field(default=None, ge=0, description="Corrected errors in a run.")
    mixed_firmware: Literal["fail", "note"] | None = None


def thresholds_for(kind: str, spec: ThresholdsSpec | None = None) -> Thresholds:
    """Return the lines for a kind of device, ``cuda`` or ``cpu``, with a user's wishes on top."""
    shipped = Thresholds(sibling_ratio_min=RATIO_MIN[kind], busy_pct_min=BUSY_PCT_MIN[kind])
    return replace(shipped, **stated(spec))  # type: ignore[arg-type]


def stated(spec: ThresholdsSpec | None) -> dict[str, object]:
    """Return what a user's file really says."""
    return (
        {}
        if spec is None
        else {name: value for name, value in spec.model_dump().items() if value is not None}
    )


def thresholds_text(thresholds: Thresholds, shipped: Thresholds) -> str:
    """Return what differs from what is shipped, in words; empty: nothing does."""
    now, then = asdict(thresholds), asdict(shipped)
    return ", ".join(f"{name} {now[name]} instead of {then[name]}" for name in now if now[name] != then[name])

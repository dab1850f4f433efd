"""``guards`` of an experiment's extension, as a file states them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from experiments.guards.guard import BURN, ERRORS, PROBE, Guard
from probes.spec import Spec


class TrafficGuardSpec(Spec):
    """What both guards over traffic need."""

    name: str = Field(default="", description="How findings call it; empty: its kind.")
    window_s: float = Field(
        default=5.0, gt=0, le=600, description="Seconds of traffic that it looks back on."
    )
    requests_min: int = Field(
        default=20, ge=1, description="Requests in the window; with fewer for a whole window it stops, blind."
    )


class ErrorsGuardSpec(TrafficGuardSpec):
    """Stops when too many requests fail."""

    kind: Literal["errors"]
    share_max: float = Field(ge=0, lt=1, description="Greatest share of failed requests in the window.")

    def to_guard(self) -> Guard:
        """Return the guard."""
        return Guard(
            name=self.name or ERRORS, kind=ERRORS, limit=self.share_max, window_s=self.window_s,
            requests_min=self.requests_min,
        )  # fmt: skip


class BurnGuardSpec(TrafficGuardSpec):
    """Stops when the error budget burns too fast: share of bad requests / (1 - objective)."""

    kind: Literal["burn"]
    objective: float = Field(gt=0, lt=1, description="Share of good requests that the SLO promises.")
    burn_max: float = Field(gt=0, description="How many times as fast as allowed the budget may burn.")

    @model_validator(mode="after")
    def _can_trip(self) -> BurnGuardSpec:
        if self.burn_max >= 1 / (1 - self.objective):
            raise ValueError(
                f"burn_max: {self.burn_max:g} can never be exceeded; with every request bad an objective of "
                f"{self.objective:g} burns {1 / (1 - self.objective):.4g} times as fast as allowed"
            )
        return self

    def to_guard(self) -> Guard:
        """Return the guard."""
        return Guard(
            name=self.name or BURN, kind=BURN, limit=self.burn_max, objective=self.objective,
            window_s=self.window_s, requests_min=self.requests_min,
        )  # fmt: skip


class ProbeGuardSpec(Spec):
    """Stops when a probe, as Chaos Toolkit knows them, is out of tolerance or does not answer."""

    kind: Literal["probe"]
    name: str = Field(default="", description="How findings call it; empty: the probe's name.")
    every_s: float = Field(default=1.0, ge=0.1, le=600, description="Seconds between two looks.")
    timeout_s: float = Field(default=5.0, gt=0, le=600, description="Seconds that one look may take.")
    probe: dict[str, Any] = Field(description="A Chaos Toolkit probe with its tolerance.")

    @field_validator("probe")
    @classmethod
    def _is_a_probe(cls, probe: dict[str, Any]) -> dict[str, Any]:
        return check_probe(probe)

    def to_guard(self) -> Guard:
        """Return the guard."""
        return Guard(
            name=self.name or str(self.probe.get("name") or PROBE), kind=PROBE, every_s=self.every_s,
            timeout_s=self.timeout_s, probe=self.probe,
        )  # fmt: skip


GuardSpec = Annotated[ErrorsGuardSpec | BurnGuardSpec | ProbeGuardSpec, Field(discriminator="kind")]


def check_probe(probe: dict[str, Any]) -> dict[str, Any]:
    """Return a Chaos Toolkit probe that has a tolerance.

    Raises:
        ValueError: it is none.
    """
    from chaoslib.activity import ensure_activity_is_valid
    from chaoslib.exceptions import ChaosException
    from chaoslib.hypothesis import ensure_hypothesis_tolerance_is_valid

    if probe.get("type") != "probe" or "tolerance" not in probe:
        raise ValueError("wanted type: probe, and a tolerance")
    try:
        ensure_activity_is_valid(probe)
        ensure_hypothesis_tolerance_is_valid(probe["tolerance"])
    except ChaosException as error:
        raise ValueError(f"Chaos Toolkit refuses it: {error}") from error
    return probe

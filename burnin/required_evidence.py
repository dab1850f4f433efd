"""Required evidence, as data: which readings must be there before a GPU may pass.

What a driver, board or platform does not have is not applicable and said; what it has and kept silent leaves
the GPU undecided.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.outcome import Outcome
from probes.spec import Spec, load_spec

_FILE = Path(__file__).with_name("required") / "readings.yaml"
ARCHITECTURES = {7: "ampere", 8: "ada", 9: "hopper", 10: "blackwell"}  # NVML's numbers


class ReadingSpec(Spec):
    """When one reading must be there."""

    source: str
    why: str = ""
    root: bool = False
    driver_from: int | None = None
    architectures: list[Literal["ampere", "ada", "hopper", "blackwell"]] | None = None
    not_boards: list[str] = Field(default_factory=list)
    platforms: list[Literal["bare metal", "virtual machine", "container"]] | None = None
    profiles: list[Literal["gate", "quick", "intake", "soak"]] | None = None


class RequiredSpec(Spec):
    """The whole file."""

    sources: dict[str, str]
    readings: dict[str, ReadingSpec]

    @model_validator(mode="after")
    def _sources_are_told(self) -> RequiredSpec:
        unknown = sorted({spec.source for spec in self.readings.values()} - set(self.sources))
        if unknown:
            raise ValueError(f"source {unknown[0]!r} is not among sources")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What decides which readings there can be."""

    board: str  # as NVML names it
    architecture: str | None  # None: one that we do not know
    driver_major: int | None  # None: the driver did not say
    platform: str
    profile: str
    is_root: bool = True


@cache
def shipped_required() -> RequiredSpec:
    """Return the table that comes with overproof."""
    return load_spec(_FILE, RequiredSpec)


def excused(spec: ReadingSpec, site: Site) -> str:
    """Return why a reading need not be there; empty: it must."""
    if spec.driver_from is not None and (site.driver_major or 0) < spec.driver_from:
        return f"driver {site.driver_major or 'unknown'} is older than {spec.driver_from}"
    if spec.root and not site.is_root:
        return "only root is told it"
    if spec.architectures is not None and site.architecture not in spec.architectures:
        return f"not asked of {site.architecture or 'an architecture that we do not know'}"
    if any(re.search(rf"\b{re.escape(part)}\b", site.board) for part in spec.not_boards):
        return f"not asked of {site.board}"
    if spec.platforms is not None and site.platform not in spec.platforms:
        return f"not asked in a {site.platform}"
    if spec.profiles is not None and site.profile not in spec.profiles:
        return f"not asked in profile {site.profile}"
    return ""


def judge_required(gpu: str, site: Site, present: Set[str], why_absent: dict[str, str]) -> Finding:
    """Leave a GPU undecided of which a reading is missing that this kind of GPU has."""
    excuses = {name: excused(spec, site) for name, spec in shipped_required().readings.items()}
    required = [name for name, excuse in excuses.items() if not excuse]
    missing = [name for name in required if name not in present]
    absent = {name: text for name, text in excuses.items() if text and name not in present}
    told = [f"{name} ({why_absent[name]})" if name in why_absent else name for name in missing]
    observed = f"missing: {', '.join(told)}" if missing else f"all {len(required)} required readings came"
    if absent:
        observed += f"; not applicable: {', '.join(absent)}"
    return Finding(
        rule="required-evidence",
        subject=subject_of(gpu),
        outcome=Outcome.INCONCLUSIVE if missing else Outcome.PASS,
        observed=observed,
        expected=f"what a {site.board} with driver {site.driver_major} on {site.platform} can say",
        evidence={"missing": missing, "not_applicable": absent, "required": required},
        next_step="mend what keeps these readings away (rights, driver, GPU), or waive them"
        if missing
        else "",
    )

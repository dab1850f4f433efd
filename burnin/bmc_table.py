"""What an entry of a management controller's log calls for, as data with its source: ``bmc_events.yaml``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from probes.spec import Spec, load_spec

_FILE = Path(__file__).with_name("bmc_events.yaml")


class BmcEventSpec(Spec):
    """One kind of entry."""

    sensor: str
    event: str
    verdict: Literal["fail", "note"]
    lasts: bool = False
    next_step: str = ""
    source: str

    def matches(self, sensor: str, event: str) -> bool:
        """Say whether an entry is of this kind."""
        pairs = ((self.sensor, sensor), (self.event, event))
        return all(re.search(pattern, text, re.IGNORECASE) for pattern, text in pairs)

    @model_validator(mode="after")
    def _says_what_to_do(self) -> BmcEventSpec:
        if self.verdict == "fail" and not self.next_step:
            raise ValueError("next_step: say what to do; only a note needs nothing done")
        return self


class BmcTableSpec(Spec):
    """The whole file."""

    sources: dict[str, str]
    events: list[BmcEventSpec]

    @model_validator(mode="after")
    def _sources_are_told(self) -> BmcTableSpec:
        unknown = sorted({spec.source for spec in self.events} - set(self.sources))
        if unknown:
            raise ValueError(f"source {unknown[0]!r} is not among sources")
        return self


@cache
def _shipped() -> BmcTableSpec:
    return load_spec(_FILE, BmcTableSpec)


def bmc_event_spec(sensor: str, event: str) -> BmcEventSpec | None:
    """Return what an entry means; None: our table does not know it."""
    return next((spec for spec in _shipped().events if spec.matches(sensor, event)), None)

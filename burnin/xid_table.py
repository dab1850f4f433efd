"""What an XID means and calls for, as data with its source: ``xids.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from probes.spec import Spec, load_spec

_FILE = Path(__file__).with_name("xids.yaml")
Verdict = Literal["fail", "count", "rerun", "note"]


class XidSpec(Spec):
    """One entry of the table."""

    name: str
    verdict: Verdict
    limit: int = Field(default=1, ge=1, description="With count: events from which the GPU fails.")
    next_step: str = ""
    source: str = "user"

    @model_validator(mode="after")
    def _says_what_to_do(self) -> XidSpec:
        if self.verdict != "note" and not self.next_step:
            raise ValueError("next_step: say what to do; only a note needs nothing done")
        return self


UNKNOWN = XidSpec(
    name="not in our table",
    verdict="count",
    next_step="look it up in NVIDIA's XID catalog, reset the GPU, then run it again",
    source="nobody",
)


class TableSpec(Spec):
    """The whole file."""

    sources: dict[str, str]
    xids: dict[int, XidSpec]

    @model_validator(mode="after")
    def _sources_are_told(self) -> TableSpec:
        unknown = sorted({spec.source for spec in self.xids.values()} - set(self.sources))
        if unknown:
            raise ValueError(f"source {unknown[0]!r} is not among sources")
        return self


@cache
def shipped_xids() -> TableSpec:
    """Return the table that comes with overproof."""
    return load_spec(_FILE, TableSpec)


def xid_spec(xid: int, overrides: Mapping[int, XidSpec] | None = None) -> XidSpec:
    """Return what an XID calls for; a user's entry goes before ours."""
    return (overrides or {}).get(xid) or shipped_xids().xids.get(xid) or UNKNOWN

"""Reports of XIDs, by whoever made them, and the events that they are reports of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# NVML and the kernel log report the same event within a second or two; a burst is one event as well.
SAME_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One report of an XID."""

    t_ns: int
    xid: int
    source: str = "NVML"


def coalesce(sightings: Sequence[Sighting]) -> list[Sighting]:
    """Return the first sighting of each event: the same code within 5 s of it is the same event."""
    events: list[Sighting] = []
    first_ns: dict[int, int] = {}
    for sighting in sorted(sightings, key=lambda s: s.t_ns):
        begun = first_ns.get(sighting.xid)
        if begun is None or sighting.t_ns - begun > SAME_WITHIN_S * 1e9:
            first_ns[sighting.xid] = sighting.t_ns
            events.append(sighting)
    return events

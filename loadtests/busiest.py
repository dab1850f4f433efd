"""The busiest second of a load client, from its rows: events read, and streams open at once.

A row stands for its events spread evenly from first to last content: what a row costs does not depend on
how long its answer is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from probes.request import Request

_BIN_NS = 100_000_000
_BINS_PER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Busiest:
    """The most that a client had to do."""

    events_per_s: float
    streams: int


def busiest_by_worker(requests: Iterable[Request]) -> dict[int, Busiest]:
    """Return the busiest second, and the most streams, of each load process."""
    rows: dict[int, list[Request]] = defaultdict(list)
    for request in requests:
        if request.t_sent_ns is not None:
            rows[request.worker].append(request)
    return {
        worker: Busiest(events_per_s=_events_per_s(sent), streams=_streams(sent))
        for worker, sent in sorted(rows.items())
    }


def _events_per_s(rows: list[Request]) -> float:
    """Return the most events in any second, counted in steps of a tenth."""
    starts = [row.t_first_ns for row in rows if row.t_first_ns is not None]
    if not starts:
        return 0.0
    begun = min(starts) // _BIN_NS
    changes: dict[int, float] = defaultdict(float)
    for row in rows:
        if row.t_first_ns is not None:
            first, last = (at // _BIN_NS - begun for at in (row.t_first_ns, row.t_last_ns or row.t_first_ns))
            share = row.events / (last - first + 1)
            changes[first] += share
            changes[last + 1] -= share
            changes[first + _BINS_PER_S] -= share  # a second later these bins leave the sum
            changes[last + 1 + _BINS_PER_S] += share
    return _highest_sum(changes)


def _highest_sum(changes: dict[int, float]) -> float:
    """Return the highest sum of ten bins, whose slope changes at the given ones."""
    highest = level = slope = 0.0
    before = 0
    for at in sorted(changes):
        level += slope * (at - before)
        highest = max(highest, level)
        slope += changes[at]
        before = at
    return highest


def _streams(rows: list[Request]) -> int:
    """Return the most requests that were under way at once."""
    steps = [(row.t_sent_ns, 1) for row in rows if row.t_sent_ns is not None]
    steps += [(row.t_end_ns, -1) for row in rows if row.t_end_ns is not None]
    return max(accumulate(step for _, step in sorted(steps)), default=0)

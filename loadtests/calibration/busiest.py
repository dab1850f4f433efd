"""The busiest second of a load client, from its rows: events read, and streams open at once.

A row stands for its events spread evenly from first to last content: what a row costs does not depend on
how long its answer is.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from probes.in_order import ascending
from probes.request import Request
from probes.request_columns import of

_BIN_NS = 100_000_000
_BINS_PER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Busiest:
    """The most that a client had to do."""

    events_per_s: float
    streams: int


def busiest_by_worker(requests: Sequence[Request]) -> dict[int, Busiest]:
    """Return the busiest second, and the most streams, of each load process."""
    sent: dict[int, array[int]] = defaultdict(lambda: array("q"))
    ended: dict[int, array[int]] = defaultdict(lambda: array("q"))
    for worker, t_sent_ns, t_end_ns in of(requests, "worker", "t_sent_ns", "t_end_ns"):
        if t_sent_ns is not None:
            sent[worker].append(t_sent_ns)
            if t_end_ns is not None:
                ended[worker].append(t_end_ns)
    events = _events_per_s(requests)
    return {
        worker: Busiest(events_per_s=events.get(worker, 0.0), streams=_streams(sent[worker], ended[worker]))
        for worker in sorted(sent)
    }


def _events_per_s(rows: Sequence[Request]) -> dict[int, float]:
    """Return the most events of each worker in any second, counted in steps of a tenth."""
    changes: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    columns = of(rows, "worker", "events", "t_sent_ns", "t_first_ns", "t_last_ns")
    for worker, count, t_sent_ns, t_first_ns, t_last_ns in columns:
        if t_sent_ns is not None and t_first_ns is not None:
            first, last = (at // _BIN_NS for at in (t_first_ns, t_last_ns or t_first_ns))
            share, bins = count / (last - first + 1), changes[worker]
            bins[first] += share
            bins[last + 1] -= share
            bins[first + _BINS_PER_S] -= share  # a second later these bins leave the sum
            bins[last + 1 + _BINS_PER_S] += share
    return {worker: _highest_sum(bins) for worker, bins in changes.items()}


def _highest_sum(changes: dict[int, float]) -> float:
    """Return the highest sum of ten bins, whose slope changes at the given ones."""
    highest = level = slope = 0.0
    before = min(changes)
    for at in sorted(changes):
        level += slope * (at - before)
        highest = max(highest, level)
        slope += changes[at]
        before = at
    return highest


def _streams(sent_ns: array[int], ended_ns: array[int]) -> int:
    """Return the most requests that were under way at once; one that ends makes room for the next."""
    ends, highest, over = ascending(ended_ns), 0, 0
    for count, sent in enumerate(ascending(sent_ns), start=1):
        while over < len(ends) and ends[over] <= sent:
            over += 1
        highest = max(highest, count - over)
    return highest

"""How many values broke a bound: at least and at most, since a client that reads late blurs its own figures.

Where a read held several events, only the last one's time is known. A breach that may be the client's own
doing is possible, not certain; a verdict has to hold for both counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.metric import ITL, METRICS
from probes.request import Request

# Failures that say nothing of the service: they may have been good or bad.
CLIENT_ERRORS = frozenset(("client_limit", "client_bug", "abandoned"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaches:
    """Of one request: values that broke the bound for certain, those that may have, and all of them."""

    certain: int
    possible: int
    total: int


def count_breaches(metric: str, bound: float, request: Request) -> Breaches:
    """Count the breaches of one request that was answered whole."""
    if metric == ITL:
        return _count_gap_breaches(request, bound)
    values = METRICS[metric].read(request)
    lower, higher = METRICS[metric].slack(request)
    return Breaches(
        certain=sum(value - lower > bound for value in values),
        possible=sum(value + higher > bound for value in values),
        total=len(values),
    )


def _count_gap_breaches(request: Request, bound_ms: float) -> Breaches:
    """Count over groups: a gap and the zeros after it came in one read, and only their sum is known."""
    certain = possible = 0
    groups = _groups(request.gaps_us)
    for position, (span_us, size) in enumerate(groups):
        span_ms = span_us / 1000
        if position == 0 and span_us == 0:  # they came together with the first event
            span_ms = request.first_uncertain_ms
        shortest_ms = span_ms - (request.last_uncertain_ms if position == len(groups) - 1 else 0.0)
        is_certain = shortest_ms > bound_ms * size and not (position == 0 and span_us == 0)
        certain += is_certain
        possible += min(size, int(span_ms / bound_ms)) if size > 1 else span_ms > bound_ms
    return Breaches(certain=certain, possible=possible, total=len(request.gaps_us))


def _groups(gaps_us: Sequence[int]) -> list[tuple[int, int]]:
    """Return (span, number of gaps in it) of each read."""
    groups: list[tuple[int, int]] = []
    for gap in gaps_us:
        if gap == 0 and groups:
            span, size = groups[-1]
            groups[-1] = (span, size + 1)
        else:
            groups.append((gap, 1))
    return groups

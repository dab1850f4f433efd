"""Bounds on a percentile by order statistics: no shape of the latencies is assumed.

The upper bound is the smallest of the measured values that the promise would still pass with as its bound,
the lower one the largest that it would fail with. They and the verdict are one and the same test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probes.share_test import chance_of_so_few, chance_of_so_many


def quantile_bounds(
    ordered: Sequence[float], *, objective: float, confidence: float, inflation: float = 1.0
) -> tuple[float | None, float | None]:
    """Return a lower and an upper bound of the percentile, each at this confidence; None: there is none yet.

    ``ordered`` ascends; what never came is ``inf`` in it.
    """
    allowed, doubt, count = 1 - objective, 1 - confidence, len(ordered)
    total = count / inflation
    beyond = _first(count, lambda k: chance_of_so_few(k / inflation, total, allowed=allowed) > doubt)
    many = _first(count, lambda k: chance_of_so_many(k / inflation, total, allowed=allowed) <= doubt)
    return (
        ordered[count - many] if 0 < many <= count else None,
        ordered[count - beyond] if beyond > 0 and count else None,
    )


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """Return the first k from 0 for which it holds, and for all after it; ``count + 1``: for none."""
    low, high = 0, count + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low

"""Student's t from the standard library alone: how far out a share of a heavy-tailed population lies."""

from __future__ import annotations

from functools import cache

from probes.incomplete_beta import incomplete_beta


def upper_tail(t: float, freedom: float) -> float:
    """Return P(T > t) for t of at least 0."""
    return 0.5 * incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


@cache
def quantile(upper: float, freedom: float) -> float:
    """Return the t above which this share (at most a half) lies."""
    low, high = 0.0, 1.0
    while upper_tail(high, freedom) > upper and high < 1e12:
        low, high = high, high * 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, freedom) > upper else (low, middle)
    return (low + high) / 2

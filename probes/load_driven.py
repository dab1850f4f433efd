"""How much requests say together where it is the load itself that makes them slow.

Near its limit a service is slow in bursts: whenever more requests than usual are under way. A short run may
meet none of these bursts by luck, and then nothing in its breaches shows that there are any. But its slowest
values come when most is under way, well below the bound too; and how long such times last is seen in how
many requests are under way, with or without a breach. Measured in docs/studies/load-queue.md.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence

from probes.dependence import correlations_of, lag_sum, normal_scores
from probes.in_order import ascending

_LINK = 3.0  # standard errors; of services that are as fast under more load, 1 in 700 looks as if it were not
_LINKED_MIN = 20  # requests


def count_under_way(begins_ns: Sequence[int], ends_ns: Sequence[int]) -> Sequence[int]:
    """Return for each begin, in order of time, how many that began before it had not ended yet."""
    ordered = ascending(array("q", ends_ns))
    return array("i", (at - bisect_right(ordered, begin) for at, begin in enumerate(begins_ns)))


def inflation_by_load(scores: Sequence[float], under_way: Sequence[int], *, share: float) -> float:
    """Return how many requests say as much as an independent one, where load makes them slow; 1: it does not.

    ``scores`` say how bad each request was, ``under_way`` how many others there were when it was sent, both
    in order of time; ``share`` is how many may break the bound in the long run.
    """
    if len(under_way) < _LINKED_MIN or not _is_linked(scores, under_way, share):
        return 1.0
    return 1 + 2 * lag_sum(correlations_of(under_way))


def _is_linked(scores: Sequence[float], under_way: Sequence[int], share: float) -> bool:
    """Say whether the slowest come when more is under way, beyond chance."""
    count = len(scores)
    least = ascending(array("d", scores))[count - max(1, round(count * share))]
    slowest = array("b", (score >= least for score in scores))
    return _correlation(slowest, normal_scores(under_way)) * math.sqrt(count) > _LINK


def _correlation(left: Sequence[float], right: Sequence[float]) -> float:
    count = len(left)
    left_mean, right_mean = math.fsum(left) / count, math.fsum(right) / count
    squares = math.fsum((x - left_mean) ** 2 for x in left) * math.fsum((y - right_mean) ** 2 for y in right)
    if squares <= 0:
        return 0.0
    products = (x * y for x, y in zip(left, right, strict=True))
    return (math.fsum(products) - count * left_mean * right_mean) / math.sqrt(squares)

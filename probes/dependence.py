"""How much less requests say together than each alone, because neighbours resemble each other.

What counts is the correlation of *breaking the bound*, not of the latencies: a series whose neighbours
correlate at 0.99 holds 1/199 of its length in independent means, and 1/88 in independent breaches of a p95.
Breaches are few, so their own correlation is seen badly, and worst of all where a run had none by luck. It
is therefore also derived from the ranks of all values, as it follows for normal scores that correlate as
these do; the larger of the two counts. Measured in docs/studies/load-verdicts.md.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice, pairwise
from operator import mul
from statistics import NormalDist

from probes.in_order import order_by

_GRID = 1.5  # lags looked at: 1, 2, 3, 4, 6, 9, 13, ...; between them correlations go in a line
_STEPS = 200  # of the table of correlations
_SAFETY = 1.05  # of what was estimated: the estimate's own scatter must not make errors more frequent
_ROUNDS = 2  # of correcting a correlation for the mean that was taken from the same series

Correlations = Sequence[tuple[int, float]]  # (lag, correlation), up to the first lag without any


def inflation(bad: Sequence[float], totals: Sequence[int], scores: Sequence[float], *, share: float) -> float:
    """Return how many values of a run say as much as one that is independent (at least 1).

    ``bad`` and ``totals`` are the breaches and values of each request in order of time, ``scores`` how bad it
    was on any scale, ``share`` how many values may break the bound in the long run.
    """
    if len(bad) < 3:
        return design_effect(bad, totals)
    is_single = max(totals) <= 1  # else what a request's score says of its many values is taken whole
    within = 1.0 if is_single else design_effect(bad, totals)
    correlations = correlations_of(normal_scores(scores))
    model = lag_sum(correlations, (lambda r: breach_correlation(r, share)) if is_single else None)
    observed = sum(bad) / max(1, sum(totals))
    own = lag_sum(correlations_of(array("d", (b - observed * n for b, n in zip(bad, totals, strict=True)))))
    lags = 1 + 2 * max(model, own)
    return within * (lags * _SAFETY if lags > 1 else 1.0)


def design_effect(bad: Sequence[float], totals: Sequence[int]) -> float:
    """Return by how much breaches that come together in few requests weaken the evidence (at least 1).

    It is the design effect of survey statistics: the variance of the share with whole requests as the unit,
    over that with every value on its own.
    """
    count, total, requests = sum(bad), sum(totals), len(bad)
    if requests < 2 or not 0 < count < total:
        return 1.0
    share = count / total
    between = sum((b - share * n) ** 2 for b, n in zip(bad, totals, strict=True)) * requests / (requests - 1)
    return max(1.0, between / (total * share * (1 - share)))


def normal_scores(values: Sequence[float]) -> array[float]:
    """Return for each value where it would lie in a normal distribution, by its rank; equal ones alike."""
    order = order_by(len(values), values.__getitem__)
    inverse, count = NormalDist().inv_cdf, len(values)
    scores = array("d", bytes(8 * count))
    start = 0
    while start < count:
        end = start + 1
        value = values[order[start]]
        while end < count and values[order[end]] == value:
            end += 1
        score = inverse((start + end) / (2 * count))
        for position in range(start, end):
            scores[order[position]] = score
        start = end
    return scores


def correlations_of(series: Sequence[float]) -> Correlations:
    """Return the correlation at growing distances, up to the first at which chance explains it.

    A mean from the same series makes correlations too small, by about their own sum over its length; that is
    put back. They are not let grow with the distance.
    """
    count = len(series)
    mean = math.fsum(series) / count
    rests = array("d", (value - mean for value in series))
    square = sum(map(mul, rests, rests))
    if square <= 1e-12 * count:
        return ()
    raw: list[tuple[int, float]] = []
    lag = 1
    while lag <= count // 4:
        product = sum(map(mul, rests, islice(rests, lag, None)))
        raw.append((lag, product / square * count / (count - lag)))
        if raw[-1][1] < 0:
            break
        lag = max(lag + 1, int(lag * _GRID))
    found = _significant(raw, count)
    for _ in range(_ROUNDS):
        lost = min(0.9, (1 + 2 * lag_sum(found)) / count)
        found = _significant([(at, r + (1 - r) * lost) for at, r in raw], count)
    return found


def _significant(raw: Correlations, count: int) -> Correlations:
    found: list[tuple[int, float]] = []
    lowest = 1.0
    for lag, correlation in raw:
        if correlation <= 1 / math.sqrt(count):
            break
        lowest = min(lowest, correlation)
        found.append((lag, lowest))
    return found


def lag_sum(correlations: Correlations, translate: Callable[[float], float] | None = None) -> float:
    """Return the sum of the correlations at all distances, in a line between those that are known."""
    total, before_lag, before = 0.0, 0, 0.0
    for lag, correlation in correlations:
        value = correlation if translate is None else translate(correlation)
        if before_lag == 0:
            total += value
        else:
            steps = lag - before_lag
            total += before * (steps - 1) / 2 + value * (steps + 1) / 2
        before_lag, before = lag, value
    return total


def breach_correlation(correlation: float, share: float) -> float:
    """Return how breaches correlate that this share of normal values makes which correlate so themselves."""
    at = max(0.0, min(1.0, correlation)) * _STEPS
    table = _breach_table(share)
    low = min(int(at), _STEPS - 1)
    return table[low] + (table[low + 1] - table[low]) * (at - low)


@cache
def _breach_table(share: float) -> tuple[float, ...]:
    """Return it for correlations 0, 1/200, ..., 1; the integral of the normal density of pairs."""
    height = NormalDist().inv_cdf(1 - share)
    angles = [math.asin(step / _STEPS) for step in range(_STEPS + 1)]
    table, covariance = [0.0], 0.0
    for low, high in pairwise(angles):
        middle = (low + high) / 2
        densities = [math.exp(-height * height / (1 + math.sin(angle))) for angle in (low, middle, high)]
        covariance += (high - low) * (densities[0] + 4 * densities[1] + densities[2]) / 6
        table.append(covariance / (2 * math.pi * share * (1 - share)))
    return tuple(table)


def inflation_of_neighbours(correlation: float, share: float) -> float:
    """Return the inflation of a long series whose neighbours correlate so, and fall off geometrically."""
    total, power = 0.0, correlation
    while power > 1e-4:
        total += breach_correlation(power, share)
        power *= correlation
    return 1 + 2 * total

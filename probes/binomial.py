"""Exact binomial probabilities from the standard library alone."""

from __future__ import annotations

import math


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """Return P(X <= successes) for a binomial X, summed in logarithms from its largest term."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    mean = trials * probability
    if successes <= mean:
        return _tail(successes, trials, probability, step=-1)
    return 1.0 - _tail(successes + 1, trials, probability, step=1)


def _tail(start: int, trials: int, probability: float, *, step: int) -> float:
    """Sum the terms from ``start`` outwards; they shrink, so stop when they no longer matter."""
    odds = probability / (1 - probability)
    log_term = (
        math.lgamma(trials + 1)
        - math.lgamma(start + 1)
        - math.lgamma(trials - start + 1)
        + start * math.log(probability)
        + (trials - start) * math.log1p(-probability)
    )
    total, term, k = 0.0, 1.0, start
    while 0 <= k <= trials and term > 1e-17 * max(total, 1e-300):
        total += term
        term *= k / ((trials - k + 1) * odds) if step < 0 else (trials - k) / (k + 1) * odds
        k += step
    return min(1.0, math.exp(log_term) * total)

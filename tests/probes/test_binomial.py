"""Binomial probabilities against sums of exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from probes.binomial import binomial_cdf


@pytest.mark.parametrize("trials", [1, 7, 60, 300])
@pytest.mark.parametrize("probability", [Fraction(1, 1000), Fraction(1, 20), Fraction(1, 2), Fraction(9, 10)])
def test_the_distribution_equals_the_exact_sum(trials: int, probability: Fraction) -> None:
    exact = Fraction(0)
    for successes in range(trials + 1):
        exact += comb(trials, successes) * probability**successes * (1 - probability) ** (trials - successes)

        assert binomial_cdf(successes, trials, float(probability)) == pytest.approx(float(exact), abs=1e-10)


def test_the_ends_are_certain_and_large_numbers_do_not_overflow() -> None:
    assert (binomial_cdf(-1, 10, 0.5), binomial_cdf(10, 10, 0.5)) == (0.0, 1.0)
    assert binomial_cdf(500_000, 1_000_000, 0.5) == pytest.approx(0.5, abs=1e-3)
    assert 0 < binomial_cdf(9_700, 1_000_000, 0.01) < 0.01

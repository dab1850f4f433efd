"""Bounds of a percentile: order statistics, and the same test as the verdict."""

from __future__ import annotations

import math
import random

import pytest

from probes.outcome import Outcome
from probes.quantile_bound import quantile_bounds
from probes.share_test import decide


@pytest.mark.parametrize("count", [10, 59, 60, 400])
def test_a_bound_at_the_upper_end_passes_and_one_below_the_lower_end_fails(count: int) -> None:
    values = sorted(random.Random(count).random() for _ in range(count))

    low, high = quantile_bounds(values, objective=0.95, confidence=0.95)

    def outcome(bound: float) -> Outcome:
        return decide(sum(v > bound for v in values), count, objective=0.95, confidence=0.95)

    if high is None:
        assert outcome(values[-1]) is not Outcome.PASS
    else:
        assert outcome(high) is Outcome.PASS
        assert outcome(math.nextafter(high, 0)) is not Outcome.PASS
    assert low is not None
    assert outcome(math.nextafter(low, 0)) is Outcome.FAIL
    assert outcome(low) is not Outcome.FAIL


def test_each_end_holds_the_truth_as_often_as_stated() -> None:
    chance = random.Random(5)
    below = above = 0
    for _ in range(800):
        low, high = quantile_bounds(
            sorted(chance.random() for _ in range(200)), objective=0.9, confidence=0.95
        )
        assert low is not None
        assert high is not None
        below += high < 0.9
        above += low > 0.9

    assert below / 800 < 0.075  # 0.05 and three standard errors
    assert above / 800 < 0.075


def test_few_values_have_no_upper_bound_and_correlated_ones_a_wider_interval() -> None:
    values = [float(v) for v in range(200)]

    assert quantile_bounds(values[:58], objective=0.95, confidence=0.95)[1] is None
    assert quantile_bounds([], objective=0.95, confidence=0.95) == (None, None)
    narrow = quantile_bounds(values, objective=0.9, confidence=0.95)
    wide = quantile_bounds(values, objective=0.9, confidence=0.95, inflation=4)
    assert wide[0] is not None
    assert narrow[0] is not None
    assert wide[0] < narrow[0]

"""How many requests a run really holds: known correlations are found, and none is made up."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from probes.dependence import (
    breach_correlation,
    correlations_of,
    design_effect,
    inflation,
    inflation_of_neighbours,
    lag_sum,
    normal_scores,
)
from tests.studies.load_verdicts import heights

P95 = 1.6449


def found(rho: float, *, count: int, seed: int) -> float:
    """Return the inflation of a p95 that is found in a simulated run."""
    values = heights(rho, count, random.Random(seed))
    broken = [int(value > P95) for value in values]
    return inflation(broken, [1] * count, values, share=0.05)


def test_correlation_of_breaches_is_that_of_pairs_of_normal_values() -> None:
    # At the median, breaches correlate by 2/pi asin(r); with equal values always.
    assert breach_correlation(0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(0.5), abs=1e-4)
    assert breach_correlation(1.0, 0.05) == pytest.approx(1.0, abs=2e-3)
    assert breach_correlation(0.0, 0.05) == 0.0


def test_simulated_breaches_correlate_as_the_integral_says() -> None:
    chance = random.Random(1)
    pairs = []
    for _ in range(200_000):
        first = chance.gauss(0, 1)
        second = 0.9 * first + math.sqrt(1 - 0.81) * chance.gauss(0, 1)
        pairs.append((first > P95) and (second > P95))

    simulated = (fmean(pairs) - 0.05**2) / (0.05 * 0.95)

    assert breach_correlation(0.9, 0.05) == pytest.approx(simulated, abs=0.015)


@pytest.mark.parametrize(("rho", "truth"), [(0.5, 1.69), (0.9, 8.57), (0.99, 88.2)])
def test_inflation_of_a_long_run_is_that_of_its_neighbours(rho: float, truth: float) -> None:
    assert inflation_of_neighbours(rho, 0.05) == pytest.approx(truth, rel=0.01)
    runs = [found(rho, count=round(400 * truth), seed=seed) for seed in range(6)]
    assert fmean(runs) == pytest.approx(truth, rel=0.25)


def test_independent_values_are_hardly_ever_taken_for_less() -> None:
    runs = [found(0.0, count=600, seed=seed) for seed in range(100)]

    assert sorted(runs)[50] == 1.0
    assert sorted(runs)[95] < 1.5


def test_dependence_shows_in_the_ranks_where_a_run_had_no_breach_at_all() -> None:
    values = heights(0.95, 300, random.Random(3))
    calm = [value - 10 for value in values]

    assert inflation([0] * 300, [1] * 300, calm, share=0.05) > 5


def test_bursts_of_breaches_show_where_the_ranks_of_the_rest_are_independent() -> None:
    chance = random.Random(4)
    values = [2 + chance.random() if i % 200 < 20 else chance.random() for i in range(2000)]

    assert inflation([int(v > 1) for v in values], [1] * 2000, values, share=0.1) > 5


def test_values_that_are_all_alike_have_no_correlation() -> None:
    assert correlations_of([3.0] * 50) == ()
    assert inflation([1] * 50, [1] * 50, [math.inf] * 50, share=0.05) == 1.0


def test_a_mean_of_the_same_series_hides_correlation_which_is_put_back() -> None:
    short = [1 + 2 * lag_sum(correlations_of(heights(0.9, 200, random.Random(s)))) for s in range(200)]

    assert fmean(short) == pytest.approx(19, rel=0.3)  # without it about 11


def test_equal_values_have_equal_scores_and_ranks_keep_their_order() -> None:
    scores = normal_scores([5.0, 1.0, math.inf, 5.0])

    assert scores[0] == scores[3] == pytest.approx(0.0, abs=1e-9)
    assert scores[1] == -scores[2] < 0


def test_breaches_of_few_requests_weaken_the_evidence() -> None:
    assert design_effect([1] * 5 + [0] * 5, [10] * 10) == 1.0
    assert design_effect([5] + [0] * 9, [10] * 10) == pytest.approx(5.3, abs=0.2)
    assert design_effect([0] * 10, [10] * 10) == 1.0

"""What is announced before a run, against what exact sums say that it decides."""

from __future__ import annotations

import pytest

from probes.binomial import binomial_cdf
from probes.outcome import Outcome
from probes.promise import GOODPUT, Slo
from probes.sample_size import bad_shares_away, requests_needed, samples_needed
from probes.share_test import decide


def share_decided(slo: Slo, truth: float, wanted: Outcome) -> float:
    """Return how often a run of the announced size decides so; summed, not simulated."""
    total = requests_needed(slo)
    probability = below = 0.0
    for bad in range(total + 1):
        upto = binomial_cdf(bad, total, truth)
        if decide(bad, total, objective=slo.objective, confidence=slo.confidence) is wanted:
            probability += upto - below
        below = upto
    return probability


@pytest.mark.parametrize("objective", [0.8, 0.95, 0.99])
def test_a_run_of_the_announced_size_decides_95_of_100_times_when_the_truth_is_20_percent_away(
    objective: float,
) -> None:
    slo = Slo(name="first", metric="ttft_ms", objective=objective, bound=500)
    better, worse = bad_shares_away(slo)

    assert share_decided(slo, better, Outcome.PASS) > 0.95
    assert share_decided(slo, worse, Outcome.FAIL) > 0.95


def test_of_goodput_half_and_twice_the_breaches_decide() -> None:
    slo = Slo(name="good", metric=GOODPUT, objective=0.95)

    assert bad_shares_away(slo) == (pytest.approx(0.025), pytest.approx(0.1))
    assert share_decided(slo, 0.025, Outcome.PASS) > 0.95


def test_correlation_several_promises_and_looking_take_more() -> None:
    slo = Slo(name="first", metric="ttft_ms", objective=0.95, bound=500)
    plain = requests_needed(slo)

    assert samples_needed(0.95, 0.95) == 59 < plain
    assert requests_needed(slo, inflation=8.6) == pytest.approx(8.6 * plain, rel=0.01)
    assert requests_needed(slo, promises=3) > plain
    assert requests_needed(slo, is_peeked=True) > plain

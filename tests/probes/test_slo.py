"""Verdicts on promises: right at the stated confidence, and never a pass without evidence."""

from __future__ import annotations

import random

import pytest

from probes.binomial import binomial_cdf
from probes.errors import ConfigError
from probes.outcome import Outcome
from probes.slo import (
    GOODPUT,
    Slo,
    Window,
    decide,
    is_good,
    judge_slo,
    judge_slos,
    samples_needed,
    tally_slo,
)
from tests.probes.rows import answered, failed
from tests.studies.load_verdicts import heights

TTFT = Slo(name="first", metric="ttft_ms", objective=0.95, bound=200)
ITL = Slo(name="gaps", metric="itl_ms", objective=0.9, bound=50)
GOOD = Slo(name="good", metric=GOODPUT, objective=0.95)


def share_of_outcome(outcome: Outcome, *, true_bad_share: float, total: int) -> float:
    """Return how probable an outcome is when the truth is known: summed, not simulated."""
    probability, below = 0.0, 0.0
    for bad in range(total + 1):
        upto = binomial_cdf(bad, total, true_bad_share)
        if decide(bad, total, objective=0.95, confidence=0.95) is outcome:
            probability += upto - below
        below = upto
    return probability


@pytest.mark.parametrize("total", [20, 59, 60, 100, 500])
def test_at_the_limit_a_wrong_verdict_is_at_most_as_probable_as_stated(total: int) -> None:
    assert share_of_outcome(Outcome.PASS, true_bad_share=0.05, total=total) <= 0.05
    assert share_of_outcome(Outcome.FAIL, true_bad_share=0.05, total=total) <= 0.05


def test_away_from_the_limit_it_decides() -> None:
    assert share_of_outcome(Outcome.PASS, true_bad_share=0.01, total=500) > 0.99
    assert share_of_outcome(Outcome.FAIL, true_bad_share=0.10, total=500) > 0.97


def test_the_number_of_samples_needed_is_just_enough() -> None:
    assert (samples_needed(0.95, 0.95), samples_needed(0.99, 0.95), samples_needed(0.999, 0.95)) == (
        59,
        299,
        2995,
    )
    assert decide(0, 59, objective=0.95, confidence=0.95) is Outcome.PASS
    assert decide(0, 58, objective=0.95, confidence=0.95) is Outcome.INCONCLUSIVE


def test_nothing_sent_is_inconclusive() -> None:
    assert judge_slo(TTFT, []).outcome is Outcome.INCONCLUSIVE


def test_fast_answers_pass_slow_ones_fail_and_few_are_inconclusive() -> None:
    fast = [answered(i, ttft_ms=100) for i in range(100)]
    slow = [answered(i, ttft_ms=100 if i % 5 else 300) for i in range(100)]

    assert judge_slo(TTFT, fast).outcome is Outcome.PASS
    assert judge_slo(TTFT, slow).outcome is Outcome.FAIL
    few = judge_slo(TTFT, fast[:30])
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "at least 59 are needed to pass" in few.observed
    assert "59 independent samples" in few.next_step


def test_failed_and_never_sent_requests_break_every_promise() -> None:
    rows = [answered(i) for i in range(80)] + [failed(80 + i, "dropped") for i in range(20)]

    for slo in (TTFT, ITL, GOOD):
        assert judge_slo(slo, rows, slos=[TTFT, ITL]).outcome is Outcome.FAIL, slo.name


def test_what_failed_on_the_clients_side_neither_passes_nor_fails() -> None:
    rows = [answered(i) for i in range(80)] + [failed(80 + i, "client_limit") for i in range(20)]

    for slo in (TTFT, GOOD):
        assert judge_slo(slo, rows, slos=[TTFT]).outcome is Outcome.INCONCLUSIVE


def test_breaches_that_may_be_the_clients_own_delay_neither_pass_nor_fail() -> None:
    rows = [answered(i, ttft_ms=220, first_uncertain_ms=60) for i in range(100)]

    finding = judge_slo(TTFT, rows)

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "0 of 100 breaches are certain" in finding.observed
    assert "core of its own" in finding.next_step


def test_goodput_counts_requests_that_met_every_bound() -> None:
    rows = [answered(i, ttft_ms=300 if i % 4 == 0 else 100) for i in range(100)]

    tally = tally_slo(GOOD, rows, [TTFT, GOOD])

    assert (tally.certain, tally.possible, tally.total) == (25, 25, 100)
    assert not is_good(rows[0], [TTFT])
    assert is_good(rows[1], [TTFT])


def test_a_request_keeps_a_bound_on_gaps_with_the_share_that_the_promise_has() -> None:
    one_of_ten = answered(gaps_ms=(20.0,) * 9 + (80.0,))
    two_of_ten = answered(gaps_ms=(20.0,) * 8 + (80.0, 80.0))

    assert is_good(one_of_ten, [ITL])
    assert not is_good(two_of_ten, [ITL])


def test_gap_breaches_of_a_few_requests_are_weaker_evidence_than_the_same_number_spread() -> None:
    spread = [answered(i, gaps_ms=(20.0,) * 39 + (80.0,)) for i in range(30)]
    lumped = [answered(i, gaps_ms=(80.0,) * 15 + (20.0,) * 25 if i < 2 else (20.0,) * 40) for i in range(30)]
    slo = Slo(name="gaps", metric="itl_ms", objective=0.96, bound=50)

    assert tally_slo(slo, spread).possible == tally_slo(slo, lumped).possible == 30
    assert judge_slo(slo, spread).outcome is Outcome.PASS
    assert judge_slo(slo, lumped).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "ttft", "bound": 1.0},
        {"metric": "ttft_ms", "bound": None},
        {"metric": GOODPUT, "bound": 1.0},
        {"metric": "ttft_ms", "bound": 1.0, "objective": 1.0},
        {"metric": "ttft_ms", "bound": 1.0, "confidence": 0.2},
    ],
)
def test_a_promise_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="slo x: "):
        Slo(**{"name": "x", "objective": 0.9} | wrong)  # type: ignore[arg-type]


def test_a_promise_by_stretches_counts_stretches() -> None:
    slo = Slo(name="w", metric="ttft_ms", objective=0.9, bound=200, window=Window(length_s=10, objective=0.8))
    # One request a second; in every fourth stretch two of ten are slow, elsewhere one.
    rows = [answered(i, ttft_ms=300 if i % 10 == 0 or (i % 40 == 1) else 100) for i in range(401)]

    tally = tally_slo(slo, rows)

    assert (tally.possible, tally.total) == (10, 40)
    finding = judge_slo(slo, rows)
    assert finding.unit == "stretches"
    assert "75.00% of 40 stretches of 10 s were good" in finding.observed
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert judge_slo(slo, []).outcome is Outcome.INCONCLUSIVE


def test_latencies_that_move_slowly_decide_less_than_as_many_independent_ones() -> None:
    values = heights(0.99, 300, random.Random(7))
    slow = [answered(i, ttft_ms=100 + 10 * value) for i, value in enumerate(values)]

    finding = judge_slo(TTFT, slow)

    assert finding.evidence["bad"] == 0
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "neighbours resemble each other" in finding.observed


def test_an_outage_fails_although_its_requests_came_together() -> None:
    rows = [failed(i, "http_5xx") if 40 <= i < 60 else answered(i) for i in range(100)]

    assert judge_slo(GOOD, rows, slos=[TTFT]).outcome is Outcome.FAIL


def test_a_half_that_is_slow_throughout_fails() -> None:
    rows = [answered(i, ttft_ms=100 if i < 100 else 300) for i in range(200)]

    assert judge_slo(TTFT, rows).outcome is Outcome.FAIL


def test_one_of_several_promises_fails_only_at_the_confidence_of_all_together() -> None:
    # 11 of 100 are slow where 5 are allowed: a chance of 1.1 %.
    rows = [answered(i, ttft_ms=300 if i % 9 == 0 and i < 99 else 100) for i in range(100)]
    others = [Slo(name=f"n{n}", metric="e2e_ms", objective=0.95, bound=9000) for n in range(4)]
    many = [Slo(name=f"m{n}", metric="ttft_ms", objective=0.95, bound=200 + n) for n in range(4)]

    alone = judge_slos([TTFT], rows)[0]
    among = judge_slos([TTFT, *others], rows)

    assert alone.outcome is Outcome.FAIL
    assert among[0].outcome is Outcome.INCONCLUSIVE
    assert [finding.outcome for finding in among[1:]] == [Outcome.PASS] * 4  # which needs no correction
    assert all(f.outcome is Outcome.INCONCLUSIVE for f in judge_slos([TTFT, *many], rows))


def test_a_run_that_was_looked_at_needs_more_to_pass() -> None:
    rows = [answered(i) for i in range(60)]

    assert judge_slos([TTFT], rows)[0].outcome is Outcome.PASS
    assert judge_slos([TTFT], rows, is_peeked=True)[0].outcome is Outcome.INCONCLUSIVE
    assert judge_slos([TTFT], [answered(i) for i in range(200)], is_peeked=True)[0].outcome is Outcome.PASS


def test_the_percentile_stands_between_two_measured_values_that_would_decide() -> None:
    rows = [answered(i, ttft_ms=100 + (i * 37) % 200) for i in range(200)]

    evidence = judge_slo(TTFT, rows).evidence

    assert 260 < evidence["percentile_low"] < 290 < evidence["percentile_high"] < 300

"""Runs that are still on the move: named where that would change the verdict, and only there."""

from __future__ import annotations

import random
from collections.abc import Callable

from probes.drift import find_trend, judge_drift
from probes.outcome import Outcome
from probes.promise import GOODPUT, Slo
from tests.probes.rows import answered
from tests.studies.load_verdicts import heights

SLO = Slo(name="first", metric="ttft_ms", objective=0.95, bound=500)


def outcome(shape: Callable[[float], float], *, count: int = 400) -> Outcome | None:
    chance = random.Random(1)
    rows = [answered(i, ttft_ms=shape(i / count) * chance.uniform(0.8, 1.2)) for i in range(count)]
    (finding,) = judge_drift([SLO, Slo(name="good", metric=GOODPUT, objective=0.9)], rows)
    assert (finding.outcome is Outcome.INCONCLUSIVE) == bool(finding.next_step)
    return finding.outcome


def test_a_run_that_stands_still_passes() -> None:
    assert outcome(lambda _: 400) is Outcome.PASS


def test_a_queue_that_grows_towards_the_bound_is_inconclusive() -> None:
    assert outcome(lambda at: 150 + 250 * at) is Outcome.INCONCLUSIVE


def test_growth_far_below_the_bound_takes_nothing_away() -> None:
    assert outcome(lambda at: 50 + 50 * at) is Outcome.PASS


def test_a_start_beyond_the_bound_that_comes_below_it_is_inconclusive() -> None:
    assert outcome(lambda at: 800 - 500 * at) is Outcome.INCONCLUSIVE


def test_few_answers_have_no_trend() -> None:
    assert outcome(lambda at: 150 + 250 * at, count=20) is None


def test_correlated_runs_that_stand_still_are_hardly_ever_taken_for_moving_ones() -> None:
    for rho, count in ((0.0, 300), (0.5, 500), (0.9, 1500)):
        moving = 0
        for seed in range(150):
            trend = find_trend(heights(rho, count, random.Random(seed)), objective=0.95)
            assert trend is not None
            moving += trend.is_moving
        assert moving <= 2, rho

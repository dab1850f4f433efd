"""Rates, effective training time, the straggler and the input of a training job."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.outcome import Outcome
from probes.training_ettr import (
    checkpoint_every,
    checkpoint_write_s,
    expected_ratio,
    find_effective,
    optimal_interval_s,
)
from probes.training_input import find_feed, judge_input
from probes.training_progress import find_progress
from probes.training_rate import compare_rates, steps_per_s, work_by_block
from probes.training_step import Step
from probes.training_straggler import find_straggler
from tests.probes.training_rows import STEP_NS, rows_of

SECOND = 1_000_000_000


@given(
    write_s=st.floats(min_value=0.01, max_value=600),
    restart_s=st.floats(min_value=0, max_value=600),
    times=st.floats(min_value=1000, max_value=1e6),
    factor=st.floats(min_value=0.1, max_value=10),
)
def test_no_other_interval_promises_noticeably_more_than_young_and_dalys(
    write_s: float, restart_s: float, times: float, factor: float
) -> None:
    mttf_s = times * (write_s + restart_s)
    best_s = optimal_interval_s(write_s=write_s, mttf_s=mttf_s)

    def ratio(interval_s: float) -> float:
        return expected_ratio(interval_s=interval_s, write_s=write_s, restart_s=restart_s, mttf_s=mttf_s)

    assert 0 < ratio(best_s) < 1
    assert ratio(best_s * factor) <= ratio(best_s) + 2 * write_s / mttf_s


def test_the_expectation_is_that_of_the_formula_and_never_below_nothing() -> None:
    ratio = expected_ratio(interval_s=1800, write_s=30, restart_s=300, mttf_s=7.9 * 3600)

    assert ratio == pytest.approx((1 - 1200 / 28440) / (1 + 30 / 1800))
    assert optimal_interval_s(write_s=30, mttf_s=28440) == pytest.approx(1306.3, abs=0.1)
    assert expected_ratio(interval_s=60, write_s=1, restart_s=1000, mttf_s=100) == 0


@given(
    death=st.integers(min_value=100, max_value=150),
    every=st.integers(min_value=5, max_value=50),
    down_s=st.integers(min_value=1, max_value=30),
)
def test_the_measured_ratio_is_what_down_time_and_lost_steps_leave(
    death: int, every: int, down_s: int
) -> None:
    rows = rows_of(1, death, start_ns=0, every=every)
    safe = death // every * every
    rows += rows_of(safe + 1, 400, start_ns=rows[-1].t_ns + down_s * SECOND, restart=1, every=every)
    progress = find_progress(rows)
    healthy = progress.between(0, 100 * STEP_NS).intervals_s()

    found = find_effective(progress, healthy, start_ns=0, end_ns=rows[-1].t_ns + 1, world=2)

    assert found is not None
    assert found.ratio == pytest.approx(400 * 0.05 / found.wall_s, rel=1e-6)
    assert found.wall_s == pytest.approx(400 * 0.05 + down_s + (death - safe) * 0.05, abs=0.01)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.ratio <= found.high


def test_steps_of_half_the_ranks_are_half_the_work() -> None:
    rows = rows_of(1, 200, start_ns=0, world=4) + rows_of(201, 400, start_ns=10 * SECOND, world=2)
    progress = find_progress(rows)

    found = find_effective(progress, [0.05] * 50, start_ns=0, end_ns=20 * SECOND, world=4)
    rates = compare_rates(
        work_by_block(progress, 0, 10 * SECOND), work_by_block(progress, 10 * SECOND, 20 * SECOND)
    )

    assert found is not None
    assert found.ratio == pytest.approx(0.75, abs=0.01)
    assert rates is not None
    assert rates.ratio == pytest.approx(0.5, abs=0.02)
    assert steps_per_s(progress, 0, 10 * SECOND) == pytest.approx(20, abs=0.2)


def test_nothing_is_said_of_no_time_and_of_no_healthy_step() -> None:
    progress = find_progress(rows_of(1, 40, start_ns=0))

    assert find_effective(progress, [], start_ns=0, end_ns=SECOND, world=2) is None
    assert find_effective(progress, [0.05], start_ns=SECOND, end_ns=SECOND, world=2) is None
    assert compare_rates([0.0, 0.0], [1.0]) is None
    assert compare_rates([], [1.0]) is None


def test_bounds_of_a_rate_hold_the_truth_about_as_often_as_stated() -> None:
    chance = random.Random(3)
    missed = 0
    for _ in range(400):
        before = [chance.gauss(40, 6) for _ in range(10)]
        after = [chance.gauss(32, 6) for _ in range(10)]
        rates = compare_rates(before, after)
        assert rates is not None
        assert rates.low is not None
        assert rates.high is not None
        assert rates.low <= rates.ratio <= rates.high
        missed += not rates.low <= 0.8 <= rates.high

    assert missed / 400 < 0.14  # a doubt of 0.05 on either side, and noise


def test_a_few_seconds_have_a_rate_and_no_bounds() -> None:
    rates = compare_rates([40.0, 41.0], [20.0])

    assert rates is not None
    assert (rates.low, rates.high) == (None, None)


def test_checkpoints_show_their_interval_and_what_writing_one_takes() -> None:
    rows = [
        Step(
            t_ns=step * STEP_NS, step=step, rank=rank, checkpoint_step=step // 20 * 20 or None,
            checkpoint_s=0.2 if step % 20 == 0 and rank == 0 else 0.00001,
        )
        for step in range(1, 101)
        for rank in range(2)
    ]  # fmt: skip

    assert checkpoint_every(rows) == 20
    assert checkpoint_write_s(rows) == pytest.approx(0.2)
    assert checkpoint_every(rows[:60]) is None
    assert checkpoint_write_s(rows[:20]) is None


def test_a_slow_rank_is_named_and_an_evenly_slow_job_has_none() -> None:
    slow = find_straggler(rows_of(1, 40, start_ns=0, world=4, slow_rank=2))

    assert slow is not None
    assert (slow.rank, slow.slow_share) == (2, 1.0)
    assert slow.factor == pytest.approx(3)
    assert find_straggler(rows_of(1, 40, start_ns=0, world=4)) is None
    assert find_straggler(rows_of(1, 40, start_ns=0, world=1)) is None


def test_a_rank_that_is_held_up_now_and_then_is_no_straggler() -> None:
    rows = [
        Step(t_ns=step, step=step, rank=rank, compute_s=0.5 if rank == 1 and step % 4 == 0 else 0.01)
        for step in range(40)
        for rank in range(3)
    ]

    assert find_straggler(rows) is None


@pytest.mark.parametrize(
    ("wait_s", "utilisation", "outcome", "said"),
    [
        (
            0.05,
            [55.0] * 10,
            Outcome.FAIL,
            "starving input: waits for data 71% of its step time; utilisation 55%",
        ),
        (0.05, [], Outcome.FAIL, "starving input: waits for data 71%"),
        (0.0001, [55.0] * 10, Outcome.PASS, "utilisation 55%, for another cause"),
        (0.0001, [], Outcome.PASS, "waits for data 0%"),
        (None, [55.0] * 10, Outcome.INCONCLUSIVE, "low utilisation 55%, and the cause is not known"),
        (None, [95.0] * 10, Outcome.PASS, "utilisation 95%; no step says"),
        (None, [95.0] * 2, Outcome.INCONCLUSIVE, "utilisation not known (2 samples)"),
        (None, [], Outcome.INCONCLUSIVE, "no step says what it waits for data"),
    ],
)
def test_a_starved_job_is_named_so_by_what_it_waits_and_never_by_utilisation_alone(
    wait_s: float | None, utilisation: list[float], outcome: Outcome, said: str
) -> None:
    rows = rows_of(1, 20, start_ns=0, data_wait_s=wait_s)

    finding = judge_input(find_feed(rows, utilisation), subject="job:lab")

    assert finding.outcome is outcome
    assert said in finding.observed
    assert ("starving" in finding.observed) == (outcome is Outcome.FAIL)


def test_few_steps_that_say_what_they_wait_decide_nothing() -> None:
    finding = judge_input(find_feed(rows_of(1, 4, start_ns=0, data_wait_s=9.0), []), subject="job:lab")

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "only 8 steps" in finding.observed


@given(waits=st.lists(st.floats(min_value=0, max_value=10), min_size=10, max_size=40))
def test_the_share_of_waiting_lies_between_none_and_all_of_it(waits: list[float]) -> None:
    rows = [Step(t_ns=i * SECOND, step=i, data_wait_s=wait) for i, wait in enumerate(waits)]

    feed = find_feed(rows, [])

    assert feed.wait_share is None or 0 <= feed.wait_share <= 1
    if fmean(waits) > 0.01:
        assert feed.wait_share is not None

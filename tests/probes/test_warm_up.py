"""The beginning of a run: left out by a stated rule, and failures never."""

from __future__ import annotations

import random

from probes.outcome import Outcome
from probes.warm_up import WarmUp, judge_warm_up, leave_out, mser5
from tests.probes.rows import answered, failed


def test_nothing_is_left_out_unless_the_workload_says_so() -> None:
    rows = [answered(i) for i in range(20)]

    assert leave_out(rows, WarmUp()).requests == rows


def test_seconds_are_left_out_from_the_first_request_on_but_failures_stay() -> None:
    rows = [failed(0), *[answered(i) for i in range(1, 20)]]  # one a second

    settled = leave_out(rows, WarmUp(seconds=5))

    assert [row.index for row in settled.requests] == [0, *range(5, 20)]
    assert settled.left_out == 4
    finding = judge_warm_up(settled, WarmUp(seconds=5), subject="endpoint:x")
    assert finding.outcome is Outcome.PASS
    assert "4 requests of the first 5.0 s" in finding.observed


def test_mser_finds_where_a_slow_start_ends() -> None:
    chance = random.Random(1)
    values = [chance.gauss(100 + (400 - 4 * i if i < 100 else 0), 10) for i in range(600)]

    cut = mser5(values)

    assert cut is not None
    assert 60 <= cut <= 120


def test_a_run_that_never_settles_is_inconclusive() -> None:
    rows = [answered(i, ttft_ms=100.0 + 10 * i) for i in range(200)]

    settled = leave_out(rows, WarmUp(is_found=True))

    assert not settled.has_settled
    assert judge_warm_up(settled, WarmUp(is_found=True), subject="endpoint:x").outcome is Outcome.INCONCLUSIVE
    assert settled.requests == rows


def test_nothing_is_left_of_a_run_shorter_than_its_warm_up() -> None:
    settled = leave_out([answered(i) for i in range(5)], WarmUp(seconds=60))

    assert not settled.has_settled
    assert mser5([1.0] * 20) is None

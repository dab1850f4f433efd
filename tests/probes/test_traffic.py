"""Rules on whether the load was the one asked for, and whether its figures can be trusted."""

from __future__ import annotations

import pytest

from probes.outcome import Outcome
from probes.slo import GOODPUT, Slo
from probes.traffic import (
    ERRORS,
    ClientFigures,
    judge_accounting,
    judge_client_lag,
    judge_errors,
    judge_lateness,
)
from tests.probes.rows import answered, failed

GOOD = Slo(name="good", metric=GOODPUT, objective=0.9)
CALM = [ClientFigures(busy_ms_max=1.0, clock_step_ms=0.01)]
ROWS = [answered(i) for i in range(10)]


def late(index: int, by_ms: float, **changes: object):  # type: ignore[no-untyped-def]
    return answered(index, t_intended_ns=answered(index).t_intended_ns - round(by_ms * 1e6), **changes)


@pytest.mark.parametrize(
    ("rows", "arrivals", "said"),
    [
        (ROWS[:9], 10, "1 missing, 0 double"),
        ([*ROWS, ROWS[0]], 10, "0 missing, 1 double"),
        ([*ROWS, answered(10)], 10, "1 unknown"),
        ([], 0, "nothing was sent"),
        (ROWS, None, "ended early"),
    ],
)
def test_an_arrival_without_its_one_row_is_inconclusive(rows, arrivals, said) -> None:  # type: ignore[no-untyped-def]
    finding = judge_accounting(rows, arrivals=arrivals, subject="client:x")

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert said in finding.observed
    assert finding.next_step


def test_every_arrival_with_its_row_passes() -> None:
    assert judge_accounting(ROWS, arrivals=10, subject="client:x").outcome is Outcome.PASS


def test_without_a_share_or_goodput_one_failure_fails_and_none_passes() -> None:
    assert judge_errors(ROWS, slos=[], subject="e").outcome is Outcome.PASS
    assert judge_errors([*ROWS, failed(10)], slos=[], subject="e").outcome is Outcome.FAIL
    assert judge_errors([], slos=[], subject="e").outcome is Outcome.INCONCLUSIVE
    assert (
        judge_errors([*ROWS, failed(10, "client_bug")], slos=[], subject="e").outcome is Outcome.INCONCLUSIVE
    )


def test_goodput_takes_the_errors_over() -> None:
    assert judge_errors([*ROWS, failed(10)], slos=[GOOD], subject="e").outcome is None


def test_a_stated_share_is_judged_with_confidence() -> None:
    rows = [answered(i) for i in range(100)]
    broken = [failed(100 + i) for i in range(30)]

    def outcome(of) -> Outcome | None:  # type: ignore[no-untyped-def]
        return judge_errors(of, slos=[GOOD], subject="e", failed_share_max=0.1).outcome

    assert outcome(rows) is Outcome.PASS
    assert outcome(rows + broken) is Outcome.FAIL
    assert outcome(rows[:20]) is Outcome.INCONCLUSIVE


def test_the_table_of_errors_explains_each_kind_with_an_example_and_the_replicas() -> None:
    rows = [failed(1, "reset", replica="b"), failed(2, "reset", replica="a"), failed(3, "no_done")]

    finding = judge_errors(rows, slos=[], subject="e")

    assert finding.observed == "3 of 3 requests failed (reset 2, no_done 1)"
    assert finding.evidence["errors"][0] == {
        "kind": "reset",
        "count": 2,
        "meaning": ERRORS["reset"],
        "example": "reset came",
        "example_index": 1,
        "replicas": ["a", "b"],
    }


def test_a_client_that_sends_late_is_inconclusive_and_waiting_for_a_connection_is_not_its_fault() -> None:
    on_time = [answered(i) for i in range(50)]
    too_late = [late(50 + i, 80) for i in range(5)]
    slow_to_connect = [late(50 + i, 80, connect_ms=80.0) for i in range(5)]

    assert judge_lateness(on_time, subject="c").outcome is Outcome.PASS
    assert judge_lateness(on_time + too_late, subject="c").outcome is Outcome.INCONCLUSIVE
    assert judge_lateness(on_time + slow_to_connect, subject="c").outcome is Outcome.PASS
    assert judge_lateness([], subject="c").outcome is Outcome.INCONCLUSIVE


def test_dropped_arrivals_are_shown_and_what_the_client_could_not_send_is_inconclusive() -> None:
    dropped = failed(10, "dropped", t_sent_ns=None)
    unable = failed(11, "client_limit", t_sent_ns=None)

    shown = judge_lateness([*ROWS, dropped], subject="c")

    assert shown.outcome is Outcome.PASS
    assert "1 dropped" in shown.observed
    assert judge_lateness([*ROWS, unable], subject="c").outcome is Outcome.INCONCLUSIVE


def test_a_calm_client_with_kernel_stamps_passes() -> None:
    assert judge_client_lag(ROWS, CALM, subject="c").outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("rows", "figures", "said"),
    [
        ([], CALM, "no answer was read"),
        ([answered(i, lag_ms_max=150.0) for i in range(10)], CALM, "waited too long"),
        (
            [answered(i, reads_unstamped=4) for i in range(10)],
            [ClientFigures(busy_ms_max=30.0, clock_step_ms=0.0)],
            "stamped too few reads",
        ),
        (ROWS, [ClientFigures(busy_ms_max=1.0, clock_step_ms=-800.0)], "wall clock jumped by 800 ms"),
    ],
)
def test_a_client_whose_figures_cannot_be_trusted_is_inconclusive(rows, figures, said) -> None:  # type: ignore[no-untyped-def]
    finding = judge_client_lag(rows, figures, subject="c")

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert said in finding.observed


def test_without_kernel_stamps_a_calm_client_is_still_good_enough() -> None:
    rows = [answered(i, reads_unstamped=4) for i in range(10)]

    assert judge_client_lag(rows, CALM, subject="c").outcome is Outcome.PASS

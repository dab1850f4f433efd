"""Guards: what they stop for, and that they are never quietly blind."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.guards.guard import (
    BLIND,
    BREACHED,
    BURN,
    ERRORS,
    PROBE,
    SEES,
    Guard,
    judge_guards,
    look_at_probe,
)
from experiments.guards.guard import look_at_traffic as look
from experiments.guards.spec import BurnGuardSpec
from experiments.guards.watch import GuardWatch
from experiments.live.record import LiveRecord
from probes.outcome import Outcome
from probes.slo import Slo
from probes.tail import Tail
from tests.experiments.rows import at, request, traffic

SLOS = (
    Slo(name="ttft", metric="ttft_ms", objective=0.95, bound=500),
    Slo(name="goodput", metric="goodput", objective=0.95),
)
ERROR_GUARD = Guard(name="errors", kind=ERRORS, limit=0.5, window_s=5, requests_min=20)
BURN_GUARD = Guard(name="burn", kind=BURN, limit=10, objective=0.95, window_s=5, requests_min=20)
PROBE_GUARD = Guard(name="seen", kind=PROBE, every_s=1, timeout_s=2, probe={"type": "probe"})


def test_a_guard_sees_only_its_window() -> None:
    bad_long_ago = traffic(-20, -6, error="http_5xx")

    assert look(ERROR_GUARD, [*bad_long_ago, *traffic(-5, 0)], SLOS, now_ns=at(0)).state == SEES
    assert look(ERROR_GUARD, traffic(-5, 0, error="http_5xx"), SLOS, now_ns=at(0)).state == BREACHED


def test_failures_of_the_client_leave_a_guard_blind_and_not_breached() -> None:
    seen = look(ERROR_GUARD, traffic(-5, 0, error="client_limit"), SLOS, now_ns=at(0))

    assert (seen.state, seen.observed) == (BLIND, "0 requests in 5 s")


def test_the_budget_burns_by_slow_answers_too() -> None:
    slow = [request(-5 + i * 0.1, took_s=1.2) for i in range(30)]
    seen = look(BURN_GUARD, [*slow, *traffic(-2, 0)], SLOS, now_ns=at(0))

    assert seen.state == BREACHED
    assert "burns 12.0 times as fast" in seen.observed
    assert look(ERROR_GUARD, [*slow, *traffic(-2, 0)], SLOS, now_ns=at(0)).state == SEES


def test_a_burn_that_can_never_be_reached_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an objective of 0\.9 burns 10 times"):
        BurnGuardSpec(kind="burn", objective=0.9, burn_max=14.4)


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (None, BLIND),
        ({"t_ns": at(-0.5), "is_met": True, "observed": "1"}, SEES),
        ({"t_ns": at(-0.5), "is_met": False, "observed": "0"}, BREACHED),
        ({"t_ns": at(-0.5), "is_met": None, "observed": "ActivityFailed"}, BLIND),
        ({"t_ns": at(-6), "is_met": True, "observed": "1"}, BLIND),
    ],
    ids=["never", "met", "not met", "broke", "fell silent"],
)
def test_a_probe_guards_only_while_it_answers(row: dict[str, object] | None, state: str) -> None:
    assert look_at_probe(PROBE_GUARD, row, now_ns=at(0)).state == state


def test_a_guard_that_is_blind_for_its_whole_window_stops_the_game_day(tmp_path: Path) -> None:
    guard = Guard(name="errors", kind=ERRORS, limit=0.5, window_s=0.05, requests_min=20)
    watch = GuardWatch([guard], SLOS, LiveRecord(tmp_path), tmp_path)
    first = watch.look()
    while (trip := watch.look()) is None:
        pass

    assert first is None
    assert (trip.guard, trip.state) == ("errors", BLIND)
    assert watch.first_blind() is not None


def test_a_breach_fails_blindness_and_not_looking_decide_nothing() -> None:
    guards = [
        {"name": name, "kind": "errors", "limit": 0.5, "window_s": 5.0} for name in ("a", "b", "c", "d")
    ]
    trips = [
        {"guard": "a", "state": BREACHED, "observed": "60 %"},
        {"guard": "b", "state": BLIND, "observed": "0 requests"},
    ]
    findings = judge_guards(guards, trips, {"a": 3, "b": 3, "c": 3})

    assert [f.outcome for f in findings] == [
        Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.INCONCLUSIVE,
    ]  # fmt: skip
    assert all(f.next_step for f in findings if f.outcome is not Outcome.PASS)


def test_a_row_is_read_once_and_a_half_line_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    tail = Tail(path)
    before = tail.read()
    path.write_text('{"a": 1}\n{"a"')
    first = tail.read()
    with path.open("a") as file:
        file.write(': 2}\nnonsense\n{"a": 3}\n')

    assert (before, first) == ([], [{"a": 1}])
    assert tail.read() == [{"a": 2}, {"a": 3}]
    assert tail.read() == []

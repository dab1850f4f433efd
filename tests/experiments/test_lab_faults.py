"""Every fault on the lab: it takes hold on its victim alone, is seen to, and undoing leaves nothing of it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from experiments import actions
from experiments.faults.pressure import pressing_with
from experiments.faults.victims import processes_of
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import UNDONE, read_ledger
from experiments.lab.control import Lab, read_lab
from experiments.lab.supervisor import all_serve
from probes.child import process_state, wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.experiments.labs import ask, running_lab

RUNNING = {"S", "R", "D"}  # a process that nobody stops sleeps, runs, or waits for a disk


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder that the actions write their ledger to."""
    monkeypatch.setenv(actions.RUN_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with running_lab(tmp_path / "lab", is_restarting=False) as running:
        yield running


@pytest.fixture
def healing_lab(tmp_path: Path) -> Iterator[Lab]:
    with running_lab(tmp_path / "lab") as running:
        yield running


def undo(day: Path) -> str:
    (undone,) = undo_pending(day, by="test")
    assert undone.is_restored, undone.did
    assert [entry.state for entry in read_ledger(day)] == [UNDONE]
    return undone.did


def is_as_before(lab: Lab) -> bool:
    """Whether the lab says of itself what it said before, but for what requests change."""
    return read_lab(lab.folder) == lab


def inject(action: Callable[..., JsonObject], lab: Lab, **arguments: object) -> JsonObject:
    return dict(action(lab=str(lab.folder), **arguments)["captured"])


def test_a_hung_replica_is_stopped_and_goes_on_after_undoing(day: Path, lab: Lab) -> None:
    captured = inject(actions.hang_replica, lab, replica="replica-1")
    (victim,) = processes_of(captured)
    state = process_state(victim.pid)
    is_ejected = wait_until(lambda: len(read_lab(lab.folder).serving) == 2, timeout_s=10)

    assert (state, is_ejected) == ("T", True)
    assert undo(day) == f"let pid {victim.pid} go on"
    assert process_state(victim.pid) in RUNNING
    assert is_as_before(lab)


def test_a_lab_that_heals_replaces_a_hung_replica_and_undoing_finds_nothing_to_do(
    day: Path, healing_lab: Lab
) -> None:
    (victim,) = processes_of(inject(actions.hang_replica, healing_lab, replica="replica-0"))
    at_once = actions.replicas_recovered(lab=str(healing_lab.folder), within_s=0)
    in_the_end = actions.replicas_recovered(lab=str(healing_lab.folder), within_s=30)

    assert (at_once["outcome"], at_once["not_replaced"]) == ("fail", ["replica-0"])
    assert in_the_end["outcome"] == "pass"
    assert not victim.is_alive
    assert undo(day).startswith("nothing to do: the lab restarted it")


def test_a_slow_replica_is_stopped_most_of_the_time_until_undone(day: Path, lab: Lab) -> None:
    captured = inject(actions.slow_replica, lab, replica="replica-2", stopped_share=0.6)
    (victim,) = processes_of(captured)
    pressing = pressing_with(captured["token"])

    assert len(pressing) == 1
    assert undo(day) == "ended 1 pressing processes"
    assert pressing_with(captured["token"]) == []
    assert {process_state(victim.pid) for _ in range(50) if not time.sleep(0.01)} <= RUNNING
    assert wait_until(lambda: is_as_before(lab), timeout_s=5)


def test_what_slows_a_replica_leaves_with_its_time_and_lets_go_when_it_is_killed(day: Path, lab: Lab) -> None:
    captured = inject(actions.slow_replica, lab, replica="replica-2", stopped_share=0.6, for_s=4)
    (victim,) = processes_of(captured)

    assert wait_until(lambda: pressing_with(captured["token"]) == [], timeout_s=10)
    assert process_state(victim.pid) in RUNNING

    killed = inject(actions.slow_replica, lab, replica="replica-2", stopped_share=0.9)
    (pressing,) = pressing_with(killed["token"])
    assert wait_until(lambda: process_state(victim.pid) == "T", timeout_s=5, interval_s=0.001)
    pressing.send(signal.SIGKILL)
    victim.send(signal.SIGSTOP)  # as if it had been killed just then
    assert all(undone.is_restored for undone in undo_pending(day, by="test"))
    assert process_state(victim.pid) in RUNNING


def test_a_crowded_replica_has_one_busy_core_and_its_own_again_after_undoing(day: Path, lab: Lab) -> None:
    before = os.sched_getaffinity(lab.replicas[0].pid or 0)
    captured = inject(actions.press_on_cpu, lab, replica="replica-0", burners=2)
    pid = captured["victims"][0]["pid"]

    assert os.sched_getaffinity(pid) == {captured["core"]}
    assert len(pressing_with(captured["token"])) == 2
    undo(day)
    assert os.sched_getaffinity(pid) == before
    assert pressing_with(captured["token"]) == []


def times_slower(took_s: dict[str, list[float]]) -> float:
    """How much longer the crowded replica takes than the others."""
    others = [seconds for replica, own in took_s.items() if replica != "replica-0" for seconds in own]
    return statistics.median(took_s["replica-0"] or [0]) / statistics.median(others)


def test_a_crowded_replica_is_slower_than_the_others_where_replicas_work(day: Path, tmp_path: Path) -> None:
    """As the shipped experiment has it; a replica that hardly works gets what it needs of a crowded core."""
    took_s: dict[str, list[float]] = defaultdict(list)
    with running_lab(tmp_path / "lab", is_restarting=False, step_work_ms=4) as lab:
        inject(actions.press_on_cpu, lab, replica="replica-0", burners=12)
        for number in range(1, 61):  # others on the machine slow all of them; that does not last
            began = time.monotonic()
            with contextlib.suppress(OSError, HTTPException):  # a gateway that gets no processor either
                replica, _answer = ask(lab.url, max_tokens=16, timeout_s=60)
                took_s[replica].append(time.monotonic() - began)
            if number >= 12 and times_slower(took_s) > 1.5:
                break
        undo(day)

    assert times_slower(took_s) > 1.5, took_s


def test_a_replica_without_memory_is_limited_and_gets_its_limit_back(day: Path, lab: Lab) -> None:
    pid = lab.replicas[0].pid or 0
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    captured = inject(actions.press_on_memory, lab, replica="replica-0", headroom_bytes=1 << 24)

    assert resource.prlimit(pid, resource.RLIMIT_AS)[0] == captured["limits"][str(pid)]
    assert undo(day).startswith("gave pid")
    assert resource.prlimit(pid, resource.RLIMIT_AS) == before


def test_a_bad_rollout_crashes_at_each_start_until_it_is_taken_back(day: Path, healing_lab: Lab) -> None:
    inject(actions.crash_replica_forever, healing_lab, replica="replica-1")
    broken = read_lab(healing_lab.folder)

    assert len(broken.serving) == 2
    assert undo(day) == "gave replica-1 its own arguments again"
    after = read_lab(healing_lab.folder)
    assert len(after.serving) == 3
    assert [r.spoiled_by + r.runs_with for r in after.replicas] == [(), (), ()]
    assert (after.replicas[0], after.replicas[2]) == (healing_lab.replicas[0], healing_lab.replicas[2])


def test_a_replica_that_answers_wrongly_serves_and_is_sound_again_after_undoing(
    day: Path, healing_lab: Lab
) -> None:
    inject(actions.spoil_answers, healing_lab, replica="replica-1")
    spoiled = read_lab(healing_lab.folder)

    assert [r.runs_with for r in spoiled.replicas] == [(), ("--fault", "wrong:1"), ()]
    assert len(spoiled.serving) == 3
    undo(day)
    assert [r.runs_with for r in read_lab(healing_lab.folder).replicas] == [(), (), ()]


def test_a_spot_machine_is_drained_taken_away_and_comes_back_later(day: Path, healing_lab: Lab) -> None:
    began = time.monotonic()
    (victim,) = processes_of(
        inject(actions.interrupt_spot_replica, healing_lab, replica="replica-0", notice_s=1.0, away_s=3.0)
    )
    took_s = time.monotonic() - began
    is_back = wait_until(lambda: all_serve(healing_lab.folder), timeout_s=30)
    away_s = time.monotonic() - began

    assert took_s >= 1.0
    assert not victim.is_alive
    assert is_back
    assert away_s >= 1.0 + 3.0  # one that died would have been back long before
    undo(day)


def test_all_replicas_but_one_can_be_killed_and_not_the_last(day: Path, healing_lab: Lab) -> None:
    captured = inject(actions.kill_all_replicas_but_one, healing_lab, seed=4)

    assert len(captured["victims"]) == 2
    assert len(captured["others"]) == 1
    assert not any(victim.is_alive for victim in processes_of(captured))
    undo(day)
    assert all_serve(healing_lab.folder)


def test_a_rolling_restart_replaces_every_process_and_never_more_than_one_at_a_time(
    day: Path, healing_lab: Lab
) -> None:
    captured = inject(actions.restart_all_in_turn, healing_lab)
    after = read_lab(healing_lab.folder)

    assert len(captured["victims"]) == 3
    assert len(after.serving) == 3
    assert all(new.pid != old.pid for new, old in zip(after.replicas, healing_lab.replicas, strict=True))
    undo(day)


def test_each_kind_of_trouble_at_the_gateway_is_met_by_a_request_from_outside_and_then_over(
    day: Path, lab: Lab
) -> None:
    troubles: list[tuple[Callable[..., JsonObject], dict[str, object]]] = [
        (actions.delay_requests, {"latency_s": 0.4}),
        (actions.answer_with_errors, {"status": 500}),
        (actions.reset_streams, {"after_events": 2}),
        (actions.swallow_requests, {}),
    ]
    for action, arguments in troubles:
        said = action(lab=str(lab.folder), **arguments)
        assert said["verified"].startswith("request 1 of our own"), said["verified"]
        with pytest.raises(TargetError, match="at the gateway already"):
            actions.delay_requests(lab=str(lab.folder))
        assert all(undone.is_restored for undone in undo_pending(day, by="test"))
        assert ask(lab.url)[1].endswith(b"data: [DONE]\n\n")
    assert is_as_before(lab)


def test_trouble_at_the_gateway_ends_with_its_time_though_nobody_undoes_it(day: Path, lab: Lab) -> None:
    actions.answer_with_errors(lab=str(lab.folder), for_s=1.0)

    assert wait_until(lambda: read_lab(lab.folder).trouble is None, timeout_s=5)
    assert undo(day) == "nothing to do: over"

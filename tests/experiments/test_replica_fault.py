"""Killing a replica of the lab, seeing it gone, and putting it back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from experiments.faults.fault import FaultRefused, load_fault
from experiments.faults.hang import undo_stop
from experiments.faults.replica import KILL, undo_kill, verify_death
from experiments.faults.victims import capture_victims, names_of, processes_of, recheck_victims
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.injecting.ledger import ARMED, UNDO_FAILED, UNDONE, VERIFIED, Ledger, read_ledger
from experiments.lab.control import process_from_json, read_lab
from experiments.lab.supervisor import all_serve
from probes.child import process_state, wait_until
from probes.errors import ConfigError, TargetError
from reports.run import read_ndjson
from tests.experiments.labs import running_lab


def kinds(folder: Path) -> list[str]:
    return [str(row["kind"]) for row in read_ndjson(folder / "events.ndjson")]


def test_the_seed_alone_chooses_the_victim(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        chosen = [names_of(capture_victims(lab.folder, replica="", seed=seed)) for seed in range(20)]
        again = [names_of(capture_victims(lab.folder, replica="", seed=seed)) for seed in range(20)]
        named = capture_victims(lab.folder, replica="replica-2", seed=1)

    assert chosen == again
    assert {name for names in chosen for name in names} == {"replica-0", "replica-1", "replica-2"}
    assert names_of(named) == ["replica-2"]
    assert [other["name"] for other in named["others"]] == ["replica-0", "replica-1"]


def test_a_fault_is_armed_injected_verified_and_undone_in_that_order(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        captured = capture_victims(lab.folder, replica="replica-1", seed=1)
        said = inject_fault(KILL, captured, tmp_path)
        state_after_injection = [entry.state for entry in read_ledger(tmp_path)]
        victim_is_alive = processes_of(captured)[0].is_alive
        undone = undo_pending(tmp_path, by="test")
        serves = all_serve(lab.folder)
        nothing_left = undo_pending(tmp_path, by="test")

    assert kinds(tmp_path) == [
        "fault.armed", "fault.injected", "fault.verified", "undo.started", "undo.verified",
    ]  # fmt: skip
    assert state_after_injection == [VERIFIED]
    assert not victim_is_alive
    assert "is gone" in said["verified"]
    assert [(u.is_restored, u.did.startswith("nothing to do: the lab restarted it")) for u in undone] == [
        (True, True)
    ]
    assert serves
    assert nothing_left == []
    assert [entry.state for entry in read_ledger(tmp_path)] == [UNDONE]


def test_undo_starts_a_replica_that_nobody_else_restarts(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", is_restarting=False) as lab:
        inject_fault(KILL, capture_victims(lab.folder, replica="replica-0", seed=1), tmp_path)
        stays_dead = not wait_until(lambda: all_serve(lab.folder), timeout_s=1)
        (undone,) = undo_pending(tmp_path, by="test")
        after = read_lab(lab.folder)

    assert stays_dead
    assert undone.is_restored
    assert undone.did.startswith("started replica-0 again")
    assert len(after.serving) == 3
    assert after.replicas[1:] == lab.replicas[1:]


def test_undo_of_a_fault_that_was_armed_and_never_injected_changes_nothing(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        captured = capture_victims(lab.folder, replica="replica-0", seed=1)
        with Ledger(tmp_path) as ledger:
            ledger.arm(KILL.name, "replica:replica-0", captured)
        (undone,) = undo_pending(tmp_path, by="test")
        after = read_lab(lab.folder)

    assert (undone.is_restored, "still serves" in undone.did) == (True, True)
    assert after == lab


def test_undo_says_that_nothing_is_left_when_the_lab_itself_is_gone(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        inject_fault(KILL, capture_victims(lab.folder, replica="", seed=1), tmp_path)
    (undone,) = undo_pending(tmp_path, by="test")

    assert (undone.is_restored, undone.did) == (True, "nothing to do: the lab itself is gone")


def test_undo_leaves_another_lab_in_the_same_folder_alone(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", is_restarting=False) as first:
        captured = capture_victims(first.folder, replica="replica-0", seed=1)
    with running_lab(tmp_path / "lab", is_restarting=False) as second:
        undoing = undo_kill(captured)
        after = read_lab(second.folder)

    assert undoing.did == "nothing to do: the lab itself is gone"
    assert after == second


def test_a_replica_that_serves_no_more_is_refused_and_so_is_the_last_one(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", replicas=2, is_restarting=False) as lab:
        with pytest.raises(
            FaultRefused, match="'replica-7' does not serve; those that do: replica-0, replica-1"
        ):
            capture_victims(lab.folder, replica="replica-7", seed=1)
        captured = capture_victims(lab.folder, replica="replica-0", seed=1)
        inject_fault(KILL, captured, tmp_path)
        assert wait_until(lambda: len(read_lab(lab.folder).serving) == 1, timeout_s=5)
        with pytest.raises(
            FaultRefused, match="1 replicas serve and 1 would be hit; at least 1 of each must be left"
        ):
            capture_victims(lab.folder, replica="", seed=1)


def test_a_victim_that_is_another_process_by_now_is_not_hit(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        captured = capture_victims(lab.folder, replica="replica-0", seed=1)
        processes_of(captured)[0].send(signal.SIGKILL)
        assert wait_until(lambda: not processes_of(captured)[0].is_alive, timeout_s=20)
        assert wait_until(lambda: all_serve(lab.folder), timeout_s=60)
        new = read_lab(lab.folder)
        with pytest.raises(FaultRefused, match="is no longer the process that was chosen"):
            inject_fault(KILL, captured, tmp_path)
        after = read_lab(lab.folder)

    assert after == new
    assert kinds(tmp_path) == ["fault.armed"]
    assert [entry.state for entry in read_ledger(tmp_path)] == [ARMED]


def test_nothing_is_hit_when_no_other_replica_would_be_left(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", replicas=2, is_restarting=False) as lab:
        captured = capture_victims(lab.folder, replica="replica-0", seed=1)
        process_from_json(captured["others"][0]).send(signal.SIGKILL)
        assert wait_until(lambda: len(read_lab(lab.folder).serving) == 1, timeout_s=5)
        with pytest.raises(FaultRefused, match="no other replica serves"):
            recheck_victims(captured)


def test_a_victim_that_lives_on_is_not_verified(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", replicas=2) as lab:
        seen = verify_death(capture_victims(lab.folder, replica="replica-0", seed=1), timeout_s=0.2)

    assert not seen.is_verified
    assert "still runs" in seen.observed


def test_without_a_lab_nothing_can_be_captured(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="lab up"):
        capture_victims(tmp_path, replica="", seed=1)


def test_an_undo_that_fails_stays_pending_and_does_not_stop_the_others(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", is_restarting=False) as lab:
        inject_fault(KILL, capture_victims(lab.folder, replica="replica-0", seed=1), tmp_path)
        with Ledger(tmp_path) as ledger:
            ledger.arm("switch.melt", "host:nobody", {})
        undone = undo_pending(tmp_path, by="test")

    assert [(u.entry.fault, u.is_restored) for u in undone] == [
        ("switch.melt", False),
        ("replica.kill", True),
    ]
    assert [entry.state for entry in read_ledger(tmp_path)] == [UNDONE, UNDO_FAILED]


def test_a_fault_that_nobody_knows_runs_no_code() -> None:
    with pytest.raises(ConfigError, match="'os:system' is unknown"):
        load_fault("os:system")


def test_undo_outruns_a_stop_that_was_sent_just_now(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", liveness_s=0) as lab:
        captured = capture_victims(lab.folder, replica="replica-0", seed=1)
        (victim,) = processes_of(captured)
        left = 0
        for _ in range(200):
            victim.send(signal.SIGSTOP)
            undo_stop(captured)
            left += wait_until(lambda: process_state(victim.pid) == "T", timeout_s=0.01, interval_s=0.005)
            victim.send(signal.SIGCONT)

    assert left == 0

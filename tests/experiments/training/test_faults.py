"""Every fault on a training job: it takes hold on its victim alone, the job heals of it or undoing ends it.

One job for all of them. Each leaves it as it found it: every rank trains.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.chaos.run_context import RUN_VARIABLE
from experiments.faults.fault import FAULTS, FaultRefused, load_fault
from experiments.faults.pressure import pressing_with
from experiments.faults.victims import processes_of
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.injecting.ledger import UNDONE, Ledger, read_ledger
from experiments.training import actions
from experiments.training.checkpoint import DATA_FILE, checkpoint_folder
from experiments.training.faults.checkpoint import CORRUPT, capture_checkpoint
from experiments.training.faults.ranks import HANG
from experiments.training.faults.targets import capture_ranks
from experiments.training.job_folder import Job, last_row, read_job, read_resumes
from probes.child import process_state, wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.experiments.training.jobs import CLOCKS, rows_of, running_job, words_of

HEAL_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def shared_job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    with running_job(tmp_path_factory.mktemp("train")) as job:
        yield job


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder that the actions write their ledger to."""
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def job(shared_job: Job) -> Job:
    """The job, with every rank training and two checkpoints at least."""
    trains = actions.ranks_train(job=str(shared_job.folder), within_s=HEAL_TIMEOUT_S)
    assert trains["outcome"] == "pass", words_of(shared_job.folder)
    begins = last_row(shared_job.folder, 0)
    assert begins is not None
    assert wait_until(lambda: (last_row(shared_job.folder, 0) or begins)["step"] >= 30, timeout_s=30)
    return read_job(shared_job.folder)


def inject(action: Callable[..., JsonObject], job: Job, **arguments: object) -> JsonObject:
    return dict(action(job=str(job.folder), **arguments)["captured"])


def healed(job: Job) -> bool:
    return bool(actions.ranks_train(job=str(job.folder), within_s=HEAL_TIMEOUT_S)["outcome"] == "pass")


def undo(day: Path) -> str:
    (undone,) = undo_pending(day, by="test")
    assert undone.is_restored, undone.did
    assert [entry.state for entry in read_ledger(day)] == [UNDONE]
    return undone.did


def test_a_step_tells_where_its_time_went_and_which_checkpoint_is_safe(job: Job) -> None:
    rows = rows_of(job, 1)[-20:]
    steps = [row["step"] for row in rows]

    assert steps == list(range(steps[0], steps[0] + 20))
    assert all(row["compute_s"] >= 0.03 and row["sync_s"] > 0 and row["data_wait_s"] > 0 for row in rows)
    assert {row["step"] - row["checkpoint_step"] for row in rows} <= set(range(10))
    assert {row["rank"] for row in rows} == {1}
    first = rows_of(job, 0)[0]["loss"]
    assert wait_until(lambda: first > 2 * rows_of(job, 0)[-1]["loss"], timeout_s=30)  # it learns


def test_a_killed_rank_has_all_begin_again_at_the_newest_checkpoint(day: Path, job: Job) -> None:
    captured = inject(actions.kill_rank, job, rank=1)
    (victim,) = processes_of(captured)
    gone = not victim.is_alive
    is_healed = healed(job)

    resumed = read_resumes(job.folder)[-1]
    before = [row for row in rows_of(job, 0) if row["restart"] == resumed["restart"] - 1]
    after = [row for row in rows_of(job, 0) if row["restart"] == resumed["restart"]]
    assert (gone, is_healed) == (True, True)
    last = before[-1]
    # Rank 0 may have saved one right then, and was ended before it had said so of its step.
    assert resumed["from_step"] in {last["checkpoint_step"], last["step"] + 1}
    assert resumed["from_step"] % 10 == 0
    assert after[0]["step"] == resumed["from_step"] + 1
    assert last["step"] - resumed["from_step"] < 11  # steps lost
    assert wait_until(lambda: read_job(job.folder).restarts == job.restarts + 1, timeout_s=10)
    assert undo(day) == "nothing to do: every rank trains"


def test_which_rank_is_hit_depends_on_the_seed_alone(job: Job) -> None:
    chosen = [capture_ranks(job.folder, rank=None, count=1, seed=7)["victims"] for _ in range(3)]
    by_seed = {capture_ranks(job.folder, rank=None, count=1, seed=s)["victims"][0]["name"] for s in range(20)}

    assert chosen[0] == chosen[1] == chosen[2]
    assert by_seed == {"rank-0", "rank-1"}


def test_no_rank_or_node_is_hit_that_is_not_there_or_the_last_one(day: Path, job: Job) -> None:
    for action, arguments in (
        (actions.kill_rank, {"rank": 9}),
        (actions.kill_rank, {"count": 2}),
        (actions.kill_rank, {"count": 0}),
        (actions.lose_node, {"node": "node-7"}),
    ):
        with pytest.raises(FaultRefused):
            inject(action, job, **arguments)
    assert read_ledger(day) == []
    with pytest.raises(TargetError, match="none runs"):
        actions.kill_rank(job=str(day))


def test_a_job_passes_over_a_spoiled_checkpoint_and_says_so(day: Path, job: Job) -> None:
    captured = capture_checkpoint(job.folder, rank=1, seed=3)
    inject_fault(CORRUPT, captured, day)
    (before,) = (job.folder / "checkpoints").glob(".before-*")
    spoiled = json.loads(before.read_text())["step"]
    is_healed = healed(job)
    resumed = read_resumes(job.folder)[-1]

    assert is_healed
    assert [one["step"] for one in resumed["passed_over"]] == [spoiled]
    assert resumed["from_step"] == spoiled - 10
    assert f"passed over the checkpoint of step {spoiled}: checksum" in words_of(job.folder)
    assert wait_until(lambda: (last_row(job.folder, 0) or {"step": 0})["step"] > spoiled + 1, timeout_s=60)
    assert undo(day) == "nothing to do: every rank trains"  # the job has written that step again
    assert not before.exists()


def test_undoing_restores_the_very_bytes_of_a_checkpoint_and_leaves_a_newer_one_alone(
    day: Path, job: Job, tmp_path: Path
) -> None:
    from experiments.training.checkpoint import save_checkpoint
    from experiments.training.faults import checkpoint

    folder = tmp_path / "checkpoints"
    for step in (10, 20):
        save_checkpoint(folder, step, os.urandom(4096))
    path = checkpoint_folder(folder, 20) / DATA_FILE
    whole = hashlib.sha256(path.read_bytes()).hexdigest()
    captured = {"checkpoints": str(folder), "token": "t", "seed": 1, "victims": [], "job": str(job.folder)}

    checkpoint.spoil_newest(captured)
    spoiled = hashlib.sha256(path.read_bytes()).hexdigest()
    did = [checkpoint.restore_bytes(captured), checkpoint.restore_bytes(captured)]
    restored = hashlib.sha256(path.read_bytes()).hexdigest()
    checkpoint.spoil_newest(captured)
    save_checkpoint(folder, 20, b"written again")

    assert spoiled != whole == restored
    assert did == ["gave the checkpoint of step 20 its bytes again", ""]
    assert checkpoint.restore_bytes(captured) == ""
    assert path.read_bytes() == b"written again"


def test_a_hung_rank_is_found_by_the_time_out_of_its_collectives(day: Path, job: Job) -> None:
    began = time.monotonic()
    (victim,) = processes_of(inject(actions.hang_rank, job, rank=0))
    state = process_state(victim.pid)
    is_ended = wait_until(lambda: not victim.is_alive, timeout_s=HEAL_TIMEOUT_S)
    ended_s = time.monotonic() - began

    assert (state, is_ended) == ("T", True)
    assert ended_s >= CLOCKS.collective_timeout_s
    assert healed(job)
    assert f"its time-out is {CLOCKS.collective_timeout_s:g} s" in words_of(job.folder)
    assert undo(day) == "nothing to do: every rank trains"


def test_a_rank_that_hangs_briefly_goes_on_after_undoing_and_nothing_is_lost(day: Path, job: Job) -> None:
    (victim,) = processes_of(inject(actions.hang_rank, job, rank=1))

    assert undo(day) == f"let pid {victim.pid} go on"
    assert victim.is_alive
    assert read_job(job.folder).restarts == job.restarts


def test_a_slow_rank_computes_longer_and_the_others_wait_for_it(day: Path, job: Job) -> None:
    captured = inject(actions.slow_rank, job, rank=1, stopped_share=0.7)
    began_ns = time.time_ns()

    def mean_s(key: str, rank: int) -> float:
        rows = [row for row in rows_of(job, rank) if row["t_ns"] > began_ns]
        return sum(row[key] for row in rows) / max(len(rows), 1)

    def shows_who_is_slow() -> bool:
        """Whether the steps since then do; for a second others on the machine may slow either."""
        works, waits = ([mean_s(key, rank) for rank in (0, 1)] for key in ("compute_s", "sync_s"))
        return works[1] > 1.5 * works[0] > 0 and waits[0] > waits[1]

    assert wait_until(shows_who_is_slow, timeout_s=30, interval_s=1.0)
    assert undo(day) == "ended 1 pressing processes"
    assert pressing_with(captured["token"]) == []
    assert read_job(job.folder).restarts == job.restarts


def test_cut_storage_shows_as_a_wait_for_data_until_undone(day: Path, job: Job) -> None:
    began_ns = time.time_ns()
    inject(actions.cut_storage, job)
    time.sleep(0.5)
    did = undo(day)
    waits_s = [row["data_wait_s"] for row in rows_of(job, 0) if row["t_ns"] > began_ns]

    assert job.storage is not None
    assert did == f"let pid {job.storage.pid} go on"
    assert max(waits_s) > 1.0
    assert read_job(job.folder).storage == job.storage


def test_the_job_goes_on_with_one_node_and_takes_the_lost_one_back(day: Path, job: Job) -> None:
    captured = inject(actions.lose_node, job, node="node-0")  # with it rank 0, who hosted the ranks' store

    def goes_on_alone() -> bool:
        row = last_row(job.folder, 0)
        return row is not None and row["world"] == 1

    alone = wait_until(goes_on_alone, timeout_s=HEAL_TIMEOUT_S)
    is_healed = healed(job)

    after = read_job(job.folder)
    assert (alone, is_healed) == (True, True), words_of(job.folder)
    assert after.nodes[1].agent == job.nodes[1].agent
    assert after.nodes[0].agent != job.nodes[0].agent
    assert not any(process.is_alive for process in processes_of(captured))
    assert undo(day) == "nothing to do: every rank trains"


def test_undoing_what_was_armed_and_never_injected_changes_nothing(day: Path, job: Job) -> None:
    with Ledger(day) as ledger:
        ledger.arm(HANG.name, "rank-0", capture_ranks(job.folder, rank=0, count=1, seed=1))

    assert undo(day) == "nothing to do: every rank trains"
    assert read_job(job.folder).ranks == job.ranks


@pytest.mark.parametrize(
    "name", [name for name, place in FAULTS.items() if place.startswith("experiments.training.")]
)
def test_a_training_fault_declares_what_it_covers_and_needs(name: str) -> None:
    fault = load_fault(name)

    assert (fault.name, fault.fidelity, fault.is_undoable) == (name, "P", True)
    assert fault.covers
    assert fault.needs
    assert bool(fault.heals) == (fault.ends_by == "platform")

"""A training job as a whole: started, looked at, stopped; whatever dies, nothing of it is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.chaos.run_context import RUN_VARIABLE
from experiments.faults.fault import load_fault
from experiments.injecting.injection import undo_pending
from experiments.training import actions
from experiments.training.job import JobPlan, job_command
from experiments.training.job_folder import JOB_FILE, is_job_alive, read_job, read_resumes
from probes.child import process_start_time, wait_until
from probes.errors import TargetError
from tests.experiments.training.jobs import START_TIMEOUT_S, all_pids, words_of

END_TIMEOUT_S = 20.0


def overproof(*arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "overproof", "lab", "train", *arguments, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S)


def all_end(pids: set[int]) -> bool:
    return wait_until(lambda: all(process_start_time(pid) is None for pid in pids), timeout_s=END_TIMEOUT_S)


def has_ranks(folder: Path) -> bool:
    try:
        return len(read_job(folder).ranks) == 2
    except TargetError:
        return False


def test_a_job_that_does_not_heal_is_dead_after_a_kill_and_undoing_starts_it_again_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path))
    folder = tmp_path / "train"
    shape = ("--nodes", "1", "--step-s", "0.03", "--no-restart", "--no-checkpoints")
    up = overproof("up", *shape, "--json", out=tmp_path)
    assert up.returncode == 0, up.stderr
    twice = overproof("up", out=tmp_path)

    actions.kill_rank(job=str(folder), rank=1)
    is_dead = wait_until(lambda: all(n.agent is None for n in read_job(folder).nodes), timeout_s=60)
    (undone,) = undo_pending(tmp_path, by="test")
    state = json.loads(overproof("status", "--json", out=tmp_path).stdout)
    resumed = read_resumes(folder)

    assert json.loads(up.stdout)["checkpoint_every_steps"] is None
    assert (twice.returncode, "one runs here already" in twice.stderr) == (2, True)
    assert is_dead
    assert undone.is_restored, words_of(folder)
    assert undone.did == "started node-0 again"
    assert [row["from_step"] for row in resumed] == [0, 0]
    assert len(state["nodes"][0]["ranks"]) == 2
    down = overproof("down", out=tmp_path)
    assert (down.returncode, "stopped 6 processes" in down.stdout) == (0, True), down.stdout
    assert overproof("status", out=tmp_path).returncode == 3


def test_nothing_is_left_when_the_supervisor_is_killed_not_even_what_is_stopped(tmp_path: Path) -> None:
    with subprocess.Popen(
        job_command(JobPlan(folder=tmp_path, nodes=1), lifeline=False),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as supervisor:
        assert wait_until(lambda: has_ranks(tmp_path), timeout_s=START_TIMEOUT_S)
        job, pids = read_job(tmp_path), all_pids(tmp_path)
        assert job.storage is not None
        for process in (job.storage, job.ranks[0].process):
            process.send(signal.SIGSTOP)
        supervisor.kill()

        assert all_end(pids)
    assert len(pids) == 6
    assert not is_job_alive(tmp_path)
    undoing = load_fault("storage.cut").undo(
        {"job": str(tmp_path), "supervisor": {"pid": job.supervisor.pid, "start_time": 1}, "victims": []}
    )
    assert (undoing.is_restored, undoing.did) == (True, "nothing to do: the job itself is gone")


STARTER = """
import sys, time
from pathlib import Path
from experiments.training.job import JobPlan, job_command
from probes.child import start_child
child = start_child(job_command(JobPlan(folder=Path(sys.argv[1]), nodes=1), lifeline=True))
time.sleep(600)
"""


def test_a_job_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)]) as starter:
        assert wait_until((tmp_path / JOB_FILE).exists, timeout_s=START_TIMEOUT_S)
        pids = all_pids(tmp_path)
        starter.kill()

        assert all_end(pids)
    assert not (tmp_path / JOB_FILE).exists()


def test_an_interrupted_start_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "overproof", "lab", "train", "up", "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as up:
        assert wait_until((tmp_path / "train" / JOB_FILE).exists, timeout_s=START_TIMEOUT_S)
        pids = all_pids(tmp_path / "train")
        os.kill(up.pid, signal.SIGINT)
        up.communicate(timeout=END_TIMEOUT_S)

        assert all_end(pids)
    assert up.returncode == 130
    assert not (tmp_path / "train" / JOB_FILE).exists()

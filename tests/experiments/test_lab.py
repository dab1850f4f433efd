"""The lab: processes on this machine, found and stopped by pid and start time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.lab.control import (
    Process,
    ask_lab,
    is_lab_alive,
    process_from_json,
    read_lab,
    read_state,
    start_replica,
    stop_lab,
    this_process,
)
from experiments.lab.supervisor import LabPlan, all_serve, start_detached
from probes.child import process_start_time, wait_until
from probes.errors import ConfigError, TargetError
from tests.experiments.labs import ask, running_lab


def lab_cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "overproof", "lab", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_requests_go_to_every_replica_and_say_which_one_answered(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab") as lab:
        answers = [ask(lab.url) for _ in range(6)]

    assert {replica for replica, _ in answers} == {"replica-0", "replica-1", "replica-2"}
    assert all(body.endswith(b"data: [DONE]\n\n") for _, body in answers)


def test_a_killed_replica_is_started_again_as_another_process(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", backoff_s=2) as lab:  # so that it is seen to be lost, however late
        victim = lab.replicas[1].process
        assert victim is not None
        victim.send(signal.SIGKILL)
        lost = wait_until(lambda: len(read_lab(lab.folder).serving) == 2, timeout_s=5, interval_s=0.01)
        came_back = wait_until(lambda: all_serve(lab.folder), timeout_s=20)
        after = read_lab(lab.folder).replicas

    assert lost
    assert came_back
    assert after[1].process not in (None, victim)
    assert [replica.restarts for replica in after] == [0, 1, 0]
    assert [after[0].process, after[2].process] == [lab.replicas[0].process, lab.replicas[2].process]


def test_requests_are_answered_while_a_replica_is_dead(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", is_restarting=False) as lab:
        victim = lab.replicas[0].process
        assert victim is not None
        victim.send(signal.SIGKILL)
        assert wait_until(lambda: not victim.is_alive, timeout_s=5, interval_s=0.005)
        answers = [ask(lab.url) for _ in range(12)]

    assert {replica for replica, _ in answers} == {"replica-1", "replica-2"}


def test_a_lab_told_not_to_restart_leaves_the_dead_dead_until_asked(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", is_restarting=False) as lab:
        victim = lab.replicas[2].process
        assert victim is not None
        victim.send(signal.SIGKILL)
        assert wait_until(lambda: not all_serve(lab.folder), timeout_s=5)
        came_back_alone = wait_until(lambda: all_serve(lab.folder), timeout_s=1.5)
        start_replica(lab.folder, "replica-2")
        came_back_when_asked = wait_until(lambda: all_serve(lab.folder), timeout_s=20)

    assert not came_back_alone
    assert came_back_when_asked


def test_the_lab_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", replicas=1) as lab:
        with pytest.raises(TargetError, match="there is no replica 'replica-9'"):
            start_replica(lab.folder, "replica-9")
        with pytest.raises(TargetError, match="'explode' is unknown"):
            ask_lab(lab.folder, {"do": "explode"})


def test_a_deep_folder_is_no_problem_for_the_control_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20) / "lab"

    with running_lab(folder, replicas=1) as lab:
        assert read_lab(folder) == lab


def test_up_stays_status_tells_down_ends_every_process(tmp_path: Path) -> None:
    up = lab_cli("up", "--port", "0", "--replicas", "2", "--json", cwd=tmp_path)
    status = lab_cli("status", cwd=tmp_path)
    again = lab_cli("up", "--port", "0", cwd=tmp_path)
    down = lab_cli("down", cwd=tmp_path)
    state = json.loads(up.stdout)
    processes = [process_from_json(row) for row in (state["supervisor"], *state["replicas"])]

    assert up.returncode == status.returncode == down.returncode == 0
    assert status.stdout.splitlines()[-1] == state["url"]
    assert status.stdout.count("serves") == 2
    assert again.returncode == 2
    assert "one runs here already" in again.stderr
    assert len(processes) == 3
    assert not any(process.is_alive for process in processes)
    assert lab_cli("down", cwd=tmp_path).returncode == 0
    assert lab_cli("status", cwd=tmp_path).returncode == 3


def test_a_port_in_use_exits_2_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = lab_cli("up", "--port", str(port), cwd=tmp_path)

    assert up.returncode == 2
    assert up.stderr.count("\n") == 1
    assert f"port {port} of 127.0.0.1 cannot be used: Address already in use" in up.stderr
    assert not is_lab_alive(tmp_path / "runs/lab")


def test_a_folder_that_cannot_be_written_exits_2(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")

    up = lab_cli("up", "--port", "0", cwd=tmp_path)

    assert up.returncode == 2, up.stderr
    assert "cannot be written" in up.stderr


def test_replicas_leave_when_their_supervisor_is_killed_and_down_cleans_up(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    start_detached(LabPlan(folder=folder, replicas=2), timeout_s=20)
    state = read_state(folder)
    assert state is not None
    replicas = [process_from_json(row) for row in state["replicas"]]

    process_from_json(state["supervisor"]).send(signal.SIGKILL)
    os.waitpid(state["supervisor"]["pid"], 0)

    assert wait_until(lambda: not any(replica.is_alive for replica in replicas), timeout_s=5)
    assert not is_lab_alive(folder)
    with pytest.raises(TargetError, match="does not answer"):
        read_lab(folder)
    stop_lab(folder)
    assert read_state(folder) is None


def test_down_ends_a_replica_that_hangs(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    start_detached(LabPlan(folder=folder, replicas=2), timeout_s=20)
    lab = read_lab(folder)
    hanging = lab.replicas[0].process
    assert hanging is not None
    hanging.send(signal.SIGSTOP)

    stop_lab(folder)
    os.waitpid(lab.supervisor.pid, 0)

    assert not hanging.is_alive


def test_a_second_lab_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running_lab(tmp_path / "lab", replicas=1) as lab:
        with pytest.raises(ConfigError, match="one runs here already"):
            start_detached(LabPlan(folder=lab.folder), timeout_s=10)
        assert is_lab_alive(lab.folder)


def test_a_signal_never_reaches_another_process_that_has_the_pid_by_now() -> None:
    child = subprocess.Popen(["sleep", "60"])
    started = process_start_time(child.pid)
    assert started is not None

    was_hit = Process(pid=child.pid, start_time=started - 1).send(signal.SIGKILL)
    still_runs = child.poll() is None
    is_hit = Process(pid=child.pid, start_time=started).send(signal.SIGKILL)
    child.wait(timeout=5)

    assert (was_hit, still_runs, is_hit) == (False, True, True)


def test_a_process_that_is_gone_is_not_alive_and_takes_no_signal() -> None:
    child = subprocess.Popen(["true"])
    gone = Process(pid=child.pid, start_time=process_start_time(child.pid))
    child.wait(timeout=5)

    assert not gone.is_alive
    assert not gone.send(signal.SIGKILL)
    assert this_process().is_alive

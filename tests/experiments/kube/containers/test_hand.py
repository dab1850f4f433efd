"""The hand on a node: which processes are a container's, and that what it stops goes on, whatever ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from experiments.kube.containers import hand
from experiments.kube.containers.faults import HAND_NEEDS
from experiments.kube.containers.hand import CONTINUE, HANG, KILL, LOOK, main, pids_of, states_of
from experiments.kube.containers.hand_pod import Hand, Word, pod_object
from experiments.kube.nodes import press as press_module
from probes.child import process_state, wait_until

CONTAINER = "c" * 64
AT = Hand(namespace="overproof", image="python:3.12-slim", python="python3")


def write_process(proc: Path, pid: int, group: str, state: str = "S") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(f"0::{group}\n")
    (folder / "stat").write_text(f"{pid} (a ) b) {state} 1 1\n")


def test_processes_of_a_container_are_known_by_their_control_group_and_no_other_by_its_words(
    tmp_path: Path,
) -> None:
    write_process(tmp_path, 7, f"/kubepods/pod1/{CONTAINER}", "T")
    write_process(tmp_path, 8, f"/kubepods.slice/cri-containerd-{CONTAINER}.scope/init")
    write_process(tmp_path, 9, f"/kubepods/pod1/{'d' * 64}")
    (tmp_path / "9" / "cmdline").write_text(CONTAINER)
    (tmp_path / "self").mkdir()
    (tmp_path / "10").mkdir()  # it has ended meanwhile

    assert pids_of(CONTAINER, proc=tmp_path) == [7, 8]
    assert states_of([7, 8, 10], proc=tmp_path) == {"7": "T", "8": "S"}


def test_a_process_that_lives_on_in_its_second_thread_has_not_ended(tmp_path: Path) -> None:
    write_process(tmp_path, 7, f"/kubepods/pod1/{CONTAINER}", "Z")
    write_process(tmp_path / "7" / "task", 7, "", "Z")
    write_process(tmp_path / "7" / "task", 70, "", "S")
    write_process(tmp_path, 8, f"/kubepods/pod1/{CONTAINER}", "Z")
    write_process(tmp_path / "8" / "task", 8, "", "Z")

    assert states_of([7, 8], proc=tmp_path) == {"7": "S", "8": "Z"}


@pytest.mark.parametrize("name", ["ab", "kubepods" * 8])
def test_what_is_no_whole_id_is_refused_since_it_would_fit_others(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([KILL, name, "0"]) == 2
    assert "whole id" in capsys.readouterr().err


def send(verb: str, victim: subprocess.Popen[bytes], for_s: float) -> subprocess.Popen[str]:
    """Start a hand whose container is this one process."""
    source = Path(hand.__file__).read_text()
    only = f"pids_of = lambda container: [{victim.pid}] if states_of([{victim.pid}]) else []\n"
    source = source.replace('if __name__ == "__main__"', f'{only}if __name__ == "__main__"')
    words = [sys.executable, "-I", "-S", "-c", source, verb, CONTAINER, str(for_s)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def victim():  # type: ignore[no-untyped-def]
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize("how", ["its time is over", "its pod is ended"])
def test_what_it_stops_goes_on_when(how: str, victim: subprocess.Popen[bytes]) -> None:
    with send(HANG, victim, 4 if how == "its time is over" else 60) as at_work:
        assert at_work.stdout is not None
        first = json.loads(at_work.stdout.readline())
        during = process_state(victim.pid)
        if how == "its pod is ended":
            at_work.send_signal(signal.SIGTERM)
        last = json.loads(at_work.stdout.readline())

    assert (first["did"], first["states"]) == (HANG, {str(victim.pid): "T"})
    assert during == "T"
    assert (last["did"], last["states"].keys()) == (CONTINUE, {str(victim.pid)})
    assert "T" not in last["states"].values()
    assert wait_until(lambda: process_state(victim.pid) == "S", timeout_s=20)
    assert at_work.returncode == 0


def test_it_looks_kills_and_lets_go_on(victim: subprocess.Popen[bytes]) -> None:
    with send(LOOK, victim, 0) as looking:
        seen = json.loads(looking.communicate()[0])
    victim.send_signal(signal.SIGSTOP)
    with send(CONTINUE, victim, 0) as going:
        gone_on = json.loads(going.communicate()[0])
    began, began_ns = time.monotonic(), time.time_ns()
    with send(KILL, victim, 0) as killing:
        wait_until(lambda: victim.poll() is not None, timeout_s=10, interval_s=0.01)
        ended_ns = time.time_ns()
        killed = json.loads(killing.communicate()[0])

    assert seen["states"].keys() == gone_on["states"].keys() == {str(victim.pid)}
    assert "T" not in {*seen["states"].values(), *gone_on["states"].values()}
    assert set(killed["states"].values()) <= {"Z"}
    assert began_ns < killed["t_ns"] <= ended_ns  # of the signal, not of its word that comes later
    assert victim.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("began_ns", "hit_ns"), [(150, 150), (100, 100), (99, 100), (201, 100)])
def test_a_hand_has_hit_when_its_node_says_so_or_else_as_early_as_can_be(began_ns: int, hit_ns: int) -> None:
    word = Word(said={"did": KILL, "t_ns": began_ns, "states": {}}, t_sent_ns=100, t_heard_ns=200)

    assert word.t_hit_ns == hit_ns


def test_its_pod_is_on_that_node_and_has_one_right_there() -> None:
    row = pod_object(AT, "h", HANG, {"node": "gpu-1", "id": CONTAINER}, for_s=30)
    spec = row["spec"]
    (container,) = spec["containers"]

    assert spec["nodeName"] == "gpu-1"
    assert spec["hostPID"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["KILL"]}
    assert not {"privileged", "volumeMounts"} & (container.keys() | container["securityContext"].keys())
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] > 30
    assert container["command"][-3:] == [HANG, CONTAINER, "30"]


def press(folder: Path, *, for_s: float) -> subprocess.Popen[str]:
    source = Path(press_module.__file__).read_text()
    words = [sys.executable, "-I", "-S", "-c", source, "1", "4", "2", str(folder), str(for_s)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["its time is over", "its pod is ended"])
def test_what_presses_on_a_node_lets_go_of_all_when(how: str, tmp_path: Path) -> None:
    began_ns = time.time_ns()
    with press(tmp_path, for_s=5 if how == "its time is over" else 60) as pressing:
        assert pressing.stdout is not None
        said = json.loads(pressing.stdout.readline())
        filled = (tmp_path / "filling").stat().st_size
        (burning,) = Path(f"/proc/{pressing.pid}/task/{pressing.pid}/children").read_text().split()
        if how == "its pod is ended":
            pressing.send_signal(signal.SIGTERM)

    assert began_ns <= said.pop("t_ns") < time.time_ns()
    assert said == {"did": "press", "cores": 1, "memory_mib": 4, "disk_mib": 2}
    assert filled == 2 << 20
    assert pressing.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert not Path("/proc", burning).exists()


def test_the_shipped_role_grants_what_hands_need_and_no_more() -> None:
    path = Path(hand.__file__).parents[1] / "manifests" / "container-faults.yaml"
    role = yaml.safe_load(path.read_text())

    granted = {(verb, kind) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}

    assert granted == set(HAND_NEEDS)

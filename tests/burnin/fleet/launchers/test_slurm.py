"""Programs on the nodes of a real Slurm, and what happens to job and programs when something dies."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from burnin.fleet.archive import build_archive
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import Channel, Program
from burnin.fleet.launchers.slurm import SlurmLauncher, why_unusable
from burnin.fleet.network.trial import Trial
from burnin.fleet.network.trial_run import TrialRunner, TrialSettings
from probes.child import wait_until
from probes.errors import TargetError
from tests.processes import processes_with
from tests.slurm import Slurm, silent_slurm

pytestmark = pytest.mark.needs("slurmctld", "munged", "slurmd", "srun")

_ECHO = """
import os, sys
print(os.environ["SLURMD_NODENAME"], os.environ["WORD"], flush=True)
for line in sys.stdin:
    print("heard", line, end="", flush=True)
"""
_ENVIRONMENT = (("WORD", "a,b c"),)
PROGRAM = Program(arguments=("-c", _ECHO), archive=b"x" * 200_000, environment=_ENVIRONMENT)


def _host(name: str) -> Host:
    return Host(name=name, access=Access(launcher="slurm", python=sys.executable))


@pytest.fixture
def launcher(slurm: Slurm) -> Iterator[SlurmLauncher]:
    made = _launcher(slurm, slurm.nodes)
    yield made
    made.close()
    assert wait_until(lambda: not slurm.jobs(), timeout_s=10), slurm.jobs()


def _launcher(slurm: Slurm, names: Sequence[str]) -> SlurmLauncher:
    return SlurmLauncher(names, time_limit_s=300, environment=slurm.environment, queue_s=10, ask_within_s=10)


def _read_line(channel: Channel) -> str:
    assert channel.wait(10)
    return channel.read().decode()


def test_both_streams_of_a_program_on_each_node_are_carried(slurm: Slurm, launcher: SlurmLauncher) -> None:
    channels = [launcher.start(_host(name), PROGRAM, within_s=20) for name in slurm.nodes]

    assert [_read_line(channel) for channel in channels] == ["node1 a,b c\n", "node2 a,b c\n"]
    for channel in channels:
        channel.write(b"one\n")
        assert _read_line(channel) == "heard one\n"
    assert channels[0].end() == 0


def test_a_job_that_is_cancelled_ends_its_programs_and_srun_says_why(
    slurm: Slurm, launcher: SlurmLauncher
) -> None:
    channel = launcher.start(_host("node1"), PROGRAM, within_s=20)
    _read_line(channel)

    slurm.ask("scancel", launcher.job)

    assert channel.wait(10)
    assert channel.read() == b""
    assert channel.end() != 0
    assert b"Terminated" in channel.errors() or b"CANCELLED" in channel.errors()


def test_a_drained_node_is_refused_with_what_to_do_and_the_other_runs(
    slurm: Slurm, launcher: SlurmLauncher
) -> None:
    slurm.ask("scontrol", "update", "nodename=node2", "state=drain", "reason=fan")
    try:
        channel = launcher.start(_host("node1"), PROGRAM, within_s=20)
        with pytest.raises(TargetError, match=r"node2 is drained \(fan\), .* put it into a reservation"):
            launcher.start(_host("node2"), PROGRAM, within_s=20)
    finally:
        slurm.ask("scontrol", "update", "nodename=node2", "state=resume")

    assert _read_line(channel).startswith("node1")


def test_a_node_that_slurm_does_not_know_is_named(slurm: Slurm) -> None:
    launcher = _launcher(slurm, ["node7"])

    with pytest.raises(TargetError, match="node7"):
        launcher.start(_host("node7"), PROGRAM, within_s=20)

    launcher.close()


def test_nodes_that_somebody_else_has_are_not_waited_for_longer_than_allowed(slurm: Slurm) -> None:
    first, second = (_launcher(slurm, ["node1"]) for _ in range(2))
    second._queue_s = 1
    first.start(_host("node1"), PROGRAM, within_s=20)
    try:
        with pytest.raises(TargetError, match=r"salloc: .*; see who has node1: squeue"):
            second.start(_host("node1"), PROGRAM, within_s=20)
    finally:
        first.close()
        second.close()


def test_a_slurm_that_does_not_answer_is_given_up(slurm: Slurm) -> None:
    with silent_slurm(slurm) as environment:
        launcher = SlurmLauncher(["node1"], time_limit_s=60, environment=environment, ask_within_s=1)

        with pytest.raises(TargetError, match="no answer within 1 s"):
            launcher.start(_host("node1"), PROGRAM, within_s=20)


def test_inside_a_job_its_nodes_are_used_and_it_is_left_alone(slurm: Slurm) -> None:
    outer = _launcher(slurm, ["node1"])
    _read_line(outer.start(_host("node1"), PROGRAM, within_s=20))
    inside = slurm.environment | {"SLURM_JOB_ID": outer.job, "SLURM_JOB_NODELIST": "node1"}
    inner = SlurmLauncher(slurm.nodes, time_limit_s=60, environment=inside)
    try:
        channel = inner.start(_host("node1"), PROGRAM, within_s=20)

        assert _read_line(channel).startswith("node1")
        with pytest.raises(TargetError, match=r"node2: not in job \d+; ask for it: salloc"):
            inner.start(_host("node2"), PROGRAM, within_s=20)
        inner.close()
        assert slurm.jobs() == [f"{outer.job} RUNNING"]
    finally:
        outer.close()


_CONTROLLER = """
import sys, time
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import Program
from burnin.fleet.launchers.slurm import SlurmLauncher
launcher = SlurmLauncher(["node1", "node2"], time_limit_s=300)
body = "import os, sys; os.environ['X']; print('begun', flush=True); sys.stdin.read()"
program = Program(arguments=("-c", body), archive=b"", environment=(("X", "1"), ("SLURM_TEST", sys.argv[1])))
for name in ("node1", "node2"):
    host = Host(name=name, access=Access(launcher="slurm", python=sys.executable))
    launcher.start(host, program, within_s=20).read()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("with_holder", [False, True])
def test_kill_9_of_the_controller_gives_the_job_back_and_leaves_nothing(
    slurm: Slurm, with_holder: bool
) -> None:
    mark = f"controller-{with_holder}"
    controller = subprocess.Popen(
        [sys.executable, "-c", _CONTROLLER, mark],
        env=slurm.environment | {"OVERPROOF_TEST_CONTROLLER": mark},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert controller.stdout is not None
    assert controller.stdout.readline() == b"ready\n"
    assert len(processes_with(f"SLURM_TEST={mark}")) == 2

    for pid, command in processes_with(f"OVERPROOF_TEST_CONTROLLER={mark}"):
        if "salloc" in command and with_holder:
            subprocess.run(["kill", "-9", str(pid)], check=True)
    controller.kill()
    killed = time.monotonic()

    assert wait_until(lambda: not slurm.jobs() and not processes_with(f"SLURM_TEST={mark}"), timeout_s=15)
    assert time.monotonic() - killed < 15
    controller.wait(timeout=5)
    left = f"OVERPROOF_TEST_CONTROLLER={mark}"
    assert wait_until(lambda: not processes_with(left), timeout_s=15), processes_with(left)
    controller.stdout.close()


def test_what_slurm_does_not_start_anything_on_is_told_from_what_it_does() -> None:
    assert [
        why_unusable("a", state, "") for state in ("idle", "reserved", "mixed", "allocated", "maint")
    ] == [""] * 5
    assert all(why_unusable("a", state, "x") for state in ("down*", "idle*", "draining", "failing", ""))


@pytest.mark.timeout(200)
def test_two_nodes_of_a_slurm_job_exchange_data_and_every_element_is_right(
    slurm: Slurm, launcher: SlurmLauncher
) -> None:
    hosts = {
        name: Host(name=name, access=Access(launcher="slurm", python=sys.executable, address="127.0.0.1"))
        for name in slurm.nodes
    }
    runner = TrialRunner(
        hosts=hosts,
        launcher_of=lambda host: launcher,
        archive=build_archive(),
        settings=TrialSettings(device="cpu", sizes_bytes=(8, 1 << 16), length_s=0.05),
    )

    result = runner.run_one(
        Trial(id="slurm", round=1, design="domains", hosts=tuple(slurm.nodes), collectives=("all_reduce",))
    )

    assert (result.state, result.is_complete, result.transport) == ("done", True, "gloo"), result.detail
    assert [(s.ranks, s.size_bytes, s.wrong_elements) for s in result.sweeps] == [(2, 8, 0), (2, 1 << 16, 0)]
    assert wait_until(lambda: not slurm.ask("squeue", "-h", "-s").strip(), timeout_s=10)

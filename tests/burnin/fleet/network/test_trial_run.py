"""Real trials between local hosts, through torchrun and gloo: each seeded fault gives its own result.

All of them run side by side in one round, as the trials of a round do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from burnin.fleet.archive import build_archive
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import Channel, Program
from burnin.fleet.launchers.local import LocalLauncher
from burnin.fleet.network.trial import Trial, TrialResult
from burnin.fleet.network.trial_run import TrialRunner, TrialSettings
from burnin.fleet.training import TrainingPlan, TrainingResult, run_training_stage
from burnin.fleet.training_rules import judge_training
from burnin.node.sweep import SLOW_S
from burnin.node.trial_order import COLLECTIVES
from probes.errors import TargetError
from probes.event import Event
from probes.outcome import Outcome
from tests.processes import processes_with

MARK = "OVERPROOF_TEST_TRIALS"
FAULTS = {
    "slow": ["slow"],
    "wrong": ["bit_flip"],
    "absent": ["absent"],
    "crash": ["crash"],
    "late": ["late"],
}
PAIRS = {
    "spoiled": ("slow", "wrong"),
    "hung": ("well-1", "absent"),
    "crashed": ("crash", "well-2"),
    "unmet": ("well-3", "late"),
    "killed": ("well-4", "killed"),
}
SETTINGS = TrialSettings(
    device="cpu",
    sizes_bytes=(8, 1 << 17),
    length_s=0.05,
    stall_s=12,
    silence_s=30,
    limit_s=60,
    meet_within_s=8,
    faults=FAULTS,
)


class _Round:
    """One round, with the word of every host on the way."""

    def __init__(self, launcher: LocalLauncher) -> None:
        names = {name for pair in PAIRS.values() for name in pair}
        self.mark = secrets.token_hex(8)
        self.left: list[tuple[int, str]] = []
        self.runner = TrialRunner(
            hosts={name: Host(name=name, access=Access(launcher="local")) for name in names},
            launcher_of=lambda host: launcher,
            archive=build_archive(),
            settings=SETTINGS,
            on_event=self._hear,
        )

    def _hear(self, trial: Trial, host: str, event: Event) -> None:
        """End one host like a power cut, in the midst of its trial."""
        if host == "killed" and event.kind == "rank.sweep":
            # The leader is the parent of the rank; what it started has to go with it.
            os.kill(self._leader, signal.SIGKILL)
        if host == "killed" and event.kind == "rank.started":
            with open(f"/proc/{event.data['pid']}/stat") as stat:  # noqa: PTH123
                self._leader = int(stat.read().rpartition(")")[2].split()[1])

    def run(self) -> Mapping[str, TrialResult]:
        trials = [
            Trial(id=name, round=1, design="domains", hosts=pair, collectives=COLLECTIVES)
            for name, pair in PAIRS.items()
        ]
        os.environ[MARK] = self.mark
        try:
            results = self.runner(trials)
        finally:
            del os.environ[MARK]
        self.left = processes_with(f"{MARK}={self.mark}")
        return {trial.id: result for trial, result in zip(trials, results, strict=True)}


@pytest.fixture(scope="module")
def launcher() -> Iterator[LocalLauncher]:
    made = LocalLauncher()
    yield made
    made.close()


@pytest.fixture(scope="module")
def done_round(launcher: LocalLauncher) -> _Round:
    return _Round(launcher)


@pytest.fixture(scope="module")
def results(done_round: _Round) -> Mapping[str, TrialResult]:
    return done_round.run()


@pytest.mark.timeout(400)
def test_a_slow_host_slows_every_collective_and_a_wrong_element_is_seen_in_each(
    results: Mapping[str, TrialResult],
) -> None:
    result = results["spoiled"]

    assert (result.state, result.is_complete, result.transport) == ("done", True, "gloo"), result.detail
    assert {(s.collective, s.size_bytes) for s in result.sweeps} == {
        (name, size) for name in COLLECTIVES for size in (8, 1 << 17)
    }
    assert {s.wrong_elements for s in result.sweeps} == {1}
    # At 128 KiB a window is one iteration, and each takes at least what the slow host adds.
    large = [s for s in result.sweeps if s.size_bytes == 1 << 17]
    assert all(0 < s.busbw_worst_gbps <= s.busbw_gbps <= (1 << 17) / SLOW_S / 1e9 for s in large)
    assert result.environment["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_rank_that_never_enters_is_a_hang_and_its_host_is_blamed(
    results: Mapping[str, TrialResult],
) -> None:
    assert (results["hung"].state, results["hung"].blamed) == ("hung", ("absent",)), results["hung"].detail
    assert "gloo has nothing like NCCL's RAS" in results["hung"].detail


def test_a_rank_that_is_killed_fails_the_trial_and_its_host_is_blamed(
    results: Mapping[str, TrialResult],
) -> None:
    assert (results["crashed"].state, results["crashed"].blamed) == ("failed", ("crash",))
    assert "ended with -9" in results["crashed"].detail


def test_a_rendezvous_to_which_one_host_does_not_come_ends_and_names_it(
    results: Mapping[str, TrialResult],
) -> None:
    assert (results["unmet"].state, results["unmet"].blamed) == ("failed", ("late",))
    assert "Rendezvous" in results["unmet"].detail


def test_a_host_that_dies_in_the_midst_is_lost(results: Mapping[str, TrialResult]) -> None:
    assert (results["killed"].state, results["killed"].blamed) == ("lost", ("killed",))
    assert not results["killed"].is_complete


def test_nothing_of_any_trial_is_left_running(results: Mapping[str, TrialResult], done_round: _Round) -> None:
    assert results
    assert done_round.left == []


def test_a_host_that_cannot_be_started_is_lost_and_the_others_are_ended(launcher: LocalLauncher) -> None:
    hosts = {
        "a": Host(name="a", access=Access(launcher="local")),
        "b": Host(name="b", access=Access(launcher="local", python="/nowhere/python3")),
    }
    runner = TrialRunner(hosts=hosts, launcher_of=lambda host: launcher, archive=build_archive())

    result = runner.run_one(Trial(id="t", round=1, design="domains", hosts=("a", "b")))

    assert (result.state, result.blamed) == ("lost", ("b",))
    assert "/nowhere/python3" in result.detail


class _SlowLauncher:
    """Takes its time with one host, as a slow login shell does."""

    def __init__(self, launcher: LocalLauncher, *, slow: str, seconds: float) -> None:
        self._launcher, self._slow, self._seconds = launcher, slow, seconds

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        if host.name == self._slow:
            time.sleep(self._seconds)
            raise TargetError(f"{host.name}: no program began")
        return self._launcher.start(host, program, within_s=within_s)

    def close(self) -> None:
        self._launcher.close()


def test_a_host_that_is_there_hears_from_us_while_another_still_logs_in(launcher: LocalLauncher) -> None:
    hosts = {name: Host(name=name, access=Access(launcher="local")) for name in "ab"}
    slow = _SlowLauncher(launcher, slow="b", seconds=4.0)
    runner = TrialRunner(
        hosts=hosts,
        launcher_of=lambda host: slow,
        archive=build_archive(),
        settings=TrialSettings(device="cpu", controller_silence_s=3.0),
    )

    result = runner.run_one(Trial(id="t", round=1, design="domains", hosts=("a", "b")))

    assert (result.state, result.blamed) == ("lost", ("b",)), result.detail


@contextlib.contextmanager
def _two_hosts_on_a_cable() -> Iterator[dict[str, Host]]:
    """Yield two hosts in network namespaces of their own, with one cable between them."""
    spaces = {side: f"op-cable-{os.getpid()}-{side}" for side in "ab"}
    try:
        for space in spaces.values():
            _run("ip", "netns", "add", space)
        _run(
            *("ip", "link", "add", "cable", "netns", spaces["a"]),
            *("type", "veth", "peer", "name", "cable", "netns", spaces["b"]),
        )
        for number, space in enumerate(spaces.values(), start=1):
            _run("ip", "-n", space, "address", "add", f"10.77.0.{number}/24", "dev", "cable")
            for interface in ("lo", "cable"):
                _run("ip", "-n", space, "link", "set", interface, "up")
        yield {
            side: Host(
                name=side,
                access=Access(
                    launcher="local",
                    python=sys.executable,
                    wrapper=("ip", "netns", "exec", space),
                    address=f"10.77.0.{number}",
                ),
            )
            for number, (side, space) in enumerate(spaces.items(), start=1)
        }
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "delete", space], check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20)


@pytest.mark.timeout(200)
@pytest.mark.needs("ip", "root")
def test_a_cable_that_is_cut_between_two_hosts_is_a_hang_that_accuses_neither(
    launcher: LocalLauncher,
) -> None:
    with _two_hosts_on_a_cable() as hosts:

        def cut(trial: Trial, host: str, event: Event) -> None:
            if event.kind == "rank.sweep":
                _run(*hosts["a"].access.wrapper, "ip", "link", "set", "cable", "down")

        runner = TrialRunner(
            hosts=hosts,
            launcher_of=lambda host: launcher,
            archive=build_archive(),
            settings=replace(SETTINGS, stall_s=4, length_s=1.0, faults={}),
            on_event=cut,
        )
        result = runner.run_one(Trial(id="cut", round=1, design="tournament", hosts=("a", "b")))

    assert (result.state, result.blamed) == ("hung", ()), result.detail
    assert "all ranks wait alike" in result.detail
    assert result.environment["GLOO_SOCKET_IFNAME"] == "cable"
    assert [(s.size_bytes, s.wrong_elements) for s in result.sweeps] == [(8, 0)]
    assert not result.is_complete


@pytest.mark.parametrize("hosts", [("a", "a"), ()])
def test_a_trial_without_hosts_or_with_one_of_them_twice_is_not_run(hosts: tuple[str, ...]) -> None:
    runner = TrialRunner(hosts={}, launcher_of=lambda host: LocalLauncher(), archive=b"")

    assert runner.run_one(Trial(id="t", round=1, design="domains", hosts=hosts)).state == "not run"


def _train(
    launcher: LocalLauncher, names: str, plan: TrainingPlan, faults: Mapping[str, list[str]]
) -> TrainingResult:
    runner = TrialRunner(
        hosts={name: Host(name=name, access=Access(launcher="local")) for name in names},
        launcher_of=lambda host: launcher,
        archive=build_archive(),
        settings=TrialSettings(device="cpu", stall_s=30, limit_s=90, faults=faults),
    )
    return run_training_stage(runner, names, plan)


@pytest.mark.timeout(300)
def test_a_training_step_repeats_bit_for_bit_and_a_flipped_bit_of_one_host_is_outvoted(
    launcher: LocalLauncher,
) -> None:
    trained = _train(launcher, "abc", TrainingPlan(steps=4), {"b": ["bit_flip"]})
    found = {(f.rule, f.subject): f for f in judge_training(trained.to_event(), trained.rows, fleet="f")}

    assert trained.result.state == "done", trained.result.detail
    assert len(trained.rows) == 3 * 3 * 4
    assert [found["training-loss", f"host:{name}"].outcome for name in "abc"] == [
        Outcome.PASS,
        Outcome.FAIL,
        Outcome.PASS,
    ]
    assert found["training-end", "fleet:f"].outcome is Outcome.PASS


@pytest.mark.timeout(200)
def test_the_users_own_command_takes_the_place_of_ours(launcher: LocalLauncher) -> None:
    body = "import os\nfor step in range(3): print(f'step {step} loss {1 / (1 + step)}', flush=True)"
    plan = TrainingPlan(command=(sys.executable, "-c", body))

    trained = _train(launcher, "ab", plan, {})
    found = judge_training(trained.to_event(), trained.rows, fleet="f")

    assert {row["loss"] for row in trained.rows} == {1.0, 0.5, 1 / 3}
    assert {f.outcome for f in found} == {Outcome.PASS}, found


def test_threads_of_trials_end(results: Mapping[str, TrialResult]) -> None:
    assert results
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("trial")]


class _Channel:
    """A host that says what it is given, and then no more."""

    def __init__(self, said: bytes) -> None:
        self._said = [said]
        self._is_ended = threading.Event()

    def write(self, data: bytes) -> None:
        del data

    def wait(self, within_s: float) -> bool:
        return bool(self._said) or self._is_ended.wait(within_s)

    def read(self) -> bytes:
        if self._said:
            return self._said.pop()
        self._is_ended.wait(60)
        return b""

    def errors(self) -> bytes:
        return b""

    def end(self) -> int | None:
        self._is_ended.set()
        return None


class _Hostile:
    """Starts nothing: its hosts say things that none of ours would."""

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        del program, within_s
        lines = [
            "\xff no event",
            '{"t_ns": 1, "host": "x", "source": "y", "kind": "trial.port", "data": {"port": "many"}}',
            '{"t_ns": 1, "host": "x", "source": "y", "kind": "rank.sweep", "data": {"rank": 0}}',
            '{"t_ns": 1, "host": "x", "source": "y", "kind": "rank.joined", "data": {"rank": [1]}}',
            "[" * 100_000,
        ]
        return _Channel("\n".join([*lines, ""]).encode("latin-1"))

    def close(self) -> None:
        pass


def test_hosts_that_say_what_none_of_ours_would_fail_their_trial_alone() -> None:
    runner = TrialRunner(
        hosts={name: Host(name=name) for name in "ab"},
        launcher_of=lambda host: _Hostile(),
        archive=b"",
        settings=TrialSettings(start_within_s=0.3),
    )

    result = runner.run_one(Trial(id="t", round=1, design="domains", hosts=("a", "b")))

    assert (result.state, result.sweeps, result.blamed) == ("failed", (), ("a", "b"))
    assert "says trial.port as none of ours would" in result.detail

"""What keeps a game day from hitting too much, or what nobody allowed: each against real hosts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.experiment import load_experiment
from experiments.faults.fault import FaultRefused, load_fault
from experiments.hosts.capture import capture_hosts, check_share
from experiments.hosts.choice import Target, choose
from experiments.hosts.conditions import look_at_hosts
from experiments.hosts.faults import arm, inject, look_at
from experiments.hosts.hold import HostHold
from experiments.hosts.host import Host
from experiments.hosts.session import close_sessions, session_of
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.injecting.ledger import read_ledger
from experiments.plan import render_plan, resolve_plan
from experiments.processes.doctor import find_leftovers
from experiments.processes.stop import stop_gameday
from probes.child import wait_until
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from reports.record import create_run
from tests.experiments.hosts.days import write_day
from tests.experiments.hosts.real_hosts import (
    allow,
    base_of,
    entry_of,
    real_hosts,
    reboot,
    start_host,
    start_program,
    target_of,
)
from tests.ssh_hosts import SshHost, SshHosts

pytestmark = pytest.mark.needs("root", "sshd", "ip")
SERVER = {"pattern": "^sleep 70003"}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHosts]:
    with real_hosts(tmp_path_factory.mktemp("bounds") / "hosts") as hosts:
        yield hosts


@pytest.fixture(scope="module")
def one(hosts: SshHosts) -> SshHost:
    return start_host(hosts, "one")


@pytest.fixture(scope="module")
def other(hosts: SshHosts) -> SshHost:
    return start_host(hosts, "other")


@pytest.fixture
def server(one: SshHost) -> Iterator[SshHost]:
    """A host with a server, and nothing of it afterwards."""
    start_program(one, "exec sleep 70003")
    assert wait_until(lambda: len(pids(one)) == 1, timeout_s=20)
    yield one
    for armed in base_of(one).glob("armed/*"):
        session_of(entry_of(one)).ask("undo", id=armed.name, by="test")
    for pid in pids(one):
        one.run("kill", "-9", pid)


def pids(host: SshHost) -> list[str]:
    rows = [line.split(maxsplit=2) for line in host.run("ps", "-eo", "pid,state,args").splitlines()]
    return [row[0] for row in rows if row[2].startswith("sleep 70003") and row[1] != "Z"]


def captured(host: SshHost, fault: str, arguments: JsonObject, *, run: str = "run", undo_after_s: float = 60):
    target = target_of(host, run=run)
    return capture_hosts(fault, arguments, target.hosts, target, undo_after_s=undo_after_s)[0]


def test_a_plan_names_host_process_and_stake_and_another_process_is_another_plan(
    server: SshHost, other: SshHost, tmp_path: Path
) -> None:
    arguments = SERVER | {"host": "one", "undo_after_s": 60}
    experiment = load_experiment(
        write_day("process-stop", target_of(server, other), tmp_path / "day", arguments=arguments)
    )
    first = resolve_plan(experiment, tmp_path, seed=1)
    again = resolve_plan(experiment, tmp_path, seed=1)
    conditions = look_at_hosts(experiment.target.hosts, {"one": ["process.stop"]})
    (old,) = pids(server)
    server.run("kill", "-9", old)
    start_program(server, "exec sleep 70003")
    assert wait_until(lambda: len(now := pids(server)) == 1 and now != [old], timeout_s=20)
    later = resolve_plan(experiment, tmp_path, seed=1)

    said = render_plan(first, conditions)
    assert "process.stop on host:one process:sleep 70003 (pid" in said
    assert "1 of 2 hosts at once (50%)" in said
    assert "by the host itself after 60 s" in said
    assert "ok  one allows it" in said
    assert first.hash == again.hash != later.hash
    assert not list(base_of(server).glob("armed/*"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"pattern": "^there is none"}, "names no process"),
        ({"pattern": "sshd"}, "names pid 1"),
        ({"pattern": "("}, "no regular expression"),
        ({}, "one of pattern, pid_file, unit is wanted"),
        ({"pattern": "x", "pid_file": "y"}, "one of pattern, pid_file, unit is wanted"),
    ],
)
def test_a_selection_that_is_empty_or_dangerous_is_refused(
    one: SshHost, arguments: JsonObject, why: str
) -> None:
    with pytest.raises(FaultRefused, match=why):
        captured(one, "process.stop", arguments)


def test_more_processes_than_were_asked_for_are_refused(server: SshHost) -> None:
    start_program(server, "exec sleep 70003")
    assert wait_until(lambda: len(pids(server)) == 2, timeout_s=20)

    with pytest.raises(FaultRefused, match="names 2 processes, at most 1 may be hit"):
        captured(server, "process.stop", SERVER)


def test_a_process_that_nothing_would_start_again_is_not_killed(server: SshHost) -> None:
    with pytest.raises(FaultRefused, match="give restart"):
        captured(server, "process.kill", SERVER)


def test_the_link_that_carries_our_connection_is_refused_unless_asked_for(one: SshHost) -> None:
    with pytest.raises(FaultRefused, match=r"our own connection, SSH from .* comes through it"):
        captured(one, "link.down", {"interface": "eth0"})
    assert captured(one, "link.down", {"interface": "eth0", "may_cut_ssh": True})["state"]["may_cut_ssh"]


def test_our_connection_is_known_behind_a_wrapper_that_hides_it(one: SshHost) -> None:
    hiding = replace(entry_of(one), wrapper=("env", "--unset=SSH_CONNECTION"))
    target = Target(hosts=(hiding,), seed=1, run="run")

    with pytest.raises(FaultRefused, match="our own connection"):
        capture_hosts("link.down", {"interface": "eth0"}, [hiding], target, undo_after_s=60)


class Stopped(BaseException):
    """As a stop comes in the midst of an order."""


def test_an_order_after_one_that_was_cut_short_gets_its_own_answer(server: SshHost) -> None:
    session = session_of(entry_of(server))
    session.ask("look")
    before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Stopped()))

    def look_and_be_stopped() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        session.ask("look")

    with pytest.raises(Stopped):
        look_and_be_stopped()
    signal.signal(signal.SIGALRM, before)

    answer = session.ask("processes", arguments=SERVER)
    assert [str(row["pid"]) for row in answer["processes"]] == pids(server)


def test_a_link_that_carries_us_goes_and_only_the_timer_brings_it_back(
    other: SshHost, tmp_path: Path
) -> None:
    state = captured(other, "link.down", {"interface": "eth0", "may_cut_ssh": True}, undo_after_s=8)

    done = inject_fault(load_fault("link.down"), state, tmp_path)
    (undone,) = undo_pending(tmp_path, by="test")

    assert done["verified"] == "eth0 is down, its carrier down"
    assert undone.is_restored
    assert "timer on the host" in undone.did
    assert read_ledger(tmp_path)[0].detail["t_undone_ns"] < read_ledger(tmp_path)[0].t_armed_ns + 20e9


def test_the_machine_that_we_run_on_is_refused(hosts: SshHosts) -> None:
    host = hosts.start("ourselves")  # a host without a boot of its own
    start_program(host, "exec sleep 70004")

    with pytest.raises(FaultRefused, match="is the machine that we run on ourselves"):
        captured(host, "process.stop", {"pattern": "^sleep 70004"})


def test_a_host_on_the_way_to_another_is_refused() -> None:
    behind = Host(name="behind", address="10.0.0.2", proxy_jump="root@10.0.0.1:22")
    target = Target(hosts=(Host(name="bastion", address="10.0.0.1"), behind), seed=1, run="run")

    with pytest.raises(FaultRefused, match="bastion: is the way to behind"):
        choose(target, host="bastion", hosts=(), count=1)
    assert choose(target, host="behind", hosts=(), count=1) == [behind]


def test_more_hosts_at_once_than_the_share_allows_are_refused(tmp_path: Path) -> None:
    names = tuple(Host(name=f"host-{n}") for n in range(4))

    check_share(["host-0", "host-1"], Target(hosts=names, seed=1, run="run"), tmp_path)
    with pytest.raises(FaultRefused, match="75% of the hosts would be broken at once, at most 50%"):
        check_share(["host-0", "host-1", "host-2"], Target(hosts=names, seed=1, run="run"), tmp_path)


def test_a_second_game_day_on_a_host_is_refused_until_the_first_has_ended(server: SshHost) -> None:
    host = entry_of(server)
    first, second = HostHold([host], "first"), HostHold([host], "second")
    first.take()
    try:
        with pytest.raises(ConfigError, match=r"another game day runs on it: first of"):
            second.take()
        with pytest.raises(FaultRefused, match="another game day runs on it"):
            arm(captured(server, "process.stop", SERVER, run="second"))
        (_, free) = look_at_hosts([host], {"one": ["process.stop"]}, run="second")
        assert not free.is_met
    finally:
        first.release()
    arm(captured(server, "process.stop", SERVER, run="second"))

    with pytest.raises(FaultRefused, match="another game day has left something on it"):
        arm(captured(server, "process.stop", SERVER, run="third"))


def test_a_host_says_which_faults_it_allows_and_to_whom_its_word_belongs(server: SshHost) -> None:
    path = base_of(server) / "gameday-allowed"
    state = captured(server, "process.stop", SERVER)
    try:
        allow(server, "link.*")
        with pytest.raises(FaultRefused, match=r"allows link\.\*, not process.stop"):
            arm(state)
        path.chmod(0o666)
        with pytest.raises(FaultRefused, match="can be written by others"):
            arm(state)
        path.unlink()
        with pytest.raises(FaultRefused, match="whoever owns this host makes that file"):
            arm(state)
    finally:
        allow(server)
    assert not [path for path in base_of(server).glob("armed/*") if path.name == state["id"]]


def test_nothing_is_injected_once_its_timer_is_gone(server: SshHost) -> None:
    state = captured(server, "process.stop", SERVER)
    arm(state)
    server.run("pkill", "-9", "-f", "experiments.host_agent.timer")
    assert wait_until(lambda: "host_agent.timer" not in " ".join(server.programs()), timeout_s=20)

    with pytest.raises(FaultRefused, match="its timer does not watch"):
        inject(state)
    assert "S" in server.run("ps", "-o", "state=", "-p", pids(server)[0])


def test_what_a_reboot_has_left_is_undone_by_the_next_look(
    hosts: SshHosts, server: SshHost, tmp_path: Path
) -> None:
    state = captured(server, "link.down", {"interface": "data0"})
    inject_fault(load_fault("link.down"), state, tmp_path)
    reboot(hosts, server)
    close_sessions()
    seen = look_at(state)
    (undone,) = undo_pending(tmp_path, by="test")

    assert "undone on the host by a look at the host" in seen
    assert undone.is_restored
    assert "UP" in server.run("ip", "-o", "link", "show", "dev", "data0")
    start_program(server, "exec sleep 70003")  # for the fixture, which ends it


def test_undoing_from_another_machine_works_and_says_when_the_timer_does_it_where_it_cannot(
    server: SshHost, tmp_path: Path
) -> None:
    writer = create_run(tmp_path, kind="gameday", spec={}, seed=1)
    folder = writer.path.resolve()
    inject_fault(load_fault("process.stop"), captured(server, "process.stop", SERVER), folder)
    ledger, header = folder / "undo.ndjson", folder / "run.json"
    for path in (ledger, header):  # both are of another machine
        path.write_text(path.read_text().replace(f'"{os.uname().nodename}"', '"elsewhere"'))
    server.cut()
    close_sessions()
    (dark,) = undo_pending(folder, by="test")
    (left,) = [found for found in find_leftovers(tmp_path) if found.kind == "fault"]
    server.mend()
    stopped = stop_gameday(folder, timeout_s=1)

    assert not dark.is_restored
    assert "the timer on one undoes it without us at" in dark.did
    assert "the timer on one undoes it" in left.observed
    assert (stopped.how, stopped.is_restored) == ("its controller does not answer", True)
    assert read_ledger(folder)[0].host == "elsewhere"
    writer.close()


def test_a_fault_cannot_be_armed_in_another_boot_than_it_was_captured_in(server: SshHost) -> None:
    state = captured(server, "process.stop", SERVER)

    with pytest.raises(FaultRefused, match="was booted again"):
        arm(state | {"boot_id": "another"})


def test_a_host_without_a_python_that_is_new_enough_says_so(server: SshHost) -> None:
    with pytest.raises(TargetError, match="one: logged in, but the agent did not begin"):
        session_of(replace(entry_of(server), python="python-that-is-not-there")).ask("look")

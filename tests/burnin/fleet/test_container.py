"""The agent behind a wrapper: inside a real container, reached through a real sshd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from burnin.fleet.fleet_burn import CONTROLLER_SILENCE_S
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.bootstrap import SILENCE_S, command_words, opening
from burnin.fleet.launchers.channel import Channel
from burnin.fleet.launchers.ssh import SshLauncher
from burnin.launcher import agent_program
from burnin.node.order import Order, order_to_line
from burnin.plan import PlanSpec
from probes.child import wait_until
from reports.run import load_run
from reports.table import read_series
from tests.burnin.fleet.kills import GONE_WITHIN_S, PLAN, complete, start
from tests.containers import Docker, running_docker
from tests.ssh_hosts import SshHost, SshHosts, ssh_hosts

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("sshd"), pytest.mark.needs("ip")]
INSIDE = "the-container"


def _long_order() -> Order:
    plan = PlanSpec(device="cpu", cpu_devices=1, only=["matmul"], duration_s=60)
    return replace(plan.to_order(seed=1), controller_silence_s=CONTROLLER_SILENCE_S)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with running_docker(tmp_path_factory.mktemp("docker")) as docker:
        yield docker


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[SshHosts]:
    with ssh_hosts(tmp_path / "hosts") as hosts:
        hosts.start("boxed")
        yield hosts


def _write_fleet(folder: Path, hosts: SshHosts, wrapper: tuple[str, ...]) -> None:
    group = {"hosts": "boxed", "address": hosts.hosts["boxed"].address, "wrapper": list(wrapper)}
    said = {"permission": "listed", "user": "root", "python": sys.executable}
    (folder / "fleet.yaml").write_text(json.dumps({"name": "boxed", "defaults": said, "groups": [group]}))
    (folder / "plan.yaml").write_text(PLAN)


@pytest.mark.needs("dockerd")
def test_the_agent_runs_inside_and_a_killed_controller_leaves_no_container(
    tmp_path: Path, docker: Docker, hosts: SshHosts
) -> None:
    _write_fleet(tmp_path, hosts, docker.wrapper(f"--hostname={INSIDE}"))
    controller = start(tmp_path, hosts, "fleet.yaml", "--plan", "plan.yaml", "--no-network")
    events = tmp_path / "runs" / "latest" / "hosts" / "boxed" / "events.ndjson"
    is_loaded = wait_until(lambda: events.exists() and '"worker.ready"' in events.read_text(), timeout_s=60)
    assert is_loaded, (tmp_path / "log").read_text()
    assert len(docker.containers()) == 1
    controller.kill()
    controller.wait(timeout=10)

    assert wait_until(lambda: not docker.containers(), timeout_s=GONE_WITHIN_S)
    assert wait_until(lambda: not hosts.hosts["boxed"].programs(), timeout_s=5)
    document = complete(tmp_path, hosts)
    run = load_run(Path(str(document["run"])))
    own = load_run(run.path / "hosts" / "boxed")
    told = own.events_of("agent.started")[0].data
    assert (told["name"], told["pid"]) == (INSIDE, 1)
    assert [row["state"] for row in read_series(run, "host")] == ["finished"]
    assert read_series(own, "matmul")
    assert not docker.containers()


def _boxed(host: SshHost, docker: Docker) -> Host:
    wrapper = docker.wrapper()
    return Host(
        name=host.name,
        access=Access(address=host.address, user="root", python=sys.executable, wrapper=wrapper),
    )


def _has_worker(channel: Channel) -> bool:
    """Give a sign of life, and say whether what comes is of a worker that has been started."""
    channel.write(b"{}\n")
    said = channel.read() if channel.wait(1.0) else b"nothing yet"
    assert said, channel.errors()
    return b'"kind":"room"' in said


@pytest.mark.needs("dockerd")
def test_a_killed_client_or_a_cut_wire_leaves_no_container(
    docker: Docker, hosts: SshHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hosts.environment().items():
        monkeypatch.setenv(name, value)
    cut = hosts.start("cut")
    order, launcher = order_to_line(_long_order()).encode(), SshLauncher()
    try:
        channels = [
            launcher.start(_boxed(host, docker), agent_program(), within_s=20)
            for host in hosts.hosts.values()
        ]
        for channel in channels:
            channel.write(order)
        at_work: set[int] = set()

        def are_at_work() -> bool:
            at_work.update(number for number, channel in enumerate(channels) if _has_worker(channel))
            return len(at_work) == len(channels)

        assert wait_until(are_at_work, timeout_s=60)
        assert len(docker.containers()) == 2

        cut.cut()
        hosts.hosts["boxed"].end_programs()

        assert wait_until(lambda: not docker.containers(), timeout_s=GONE_WITHIN_S)
    finally:
        launcher.close()


@pytest.mark.needs("unshare")
def test_a_program_that_is_only_half_sent_leaves_although_it_is_the_first_process_of_its_space() -> None:
    """The kernel keeps deadly signals from such a process, SIGALRM too, unless it has asked for them."""
    silence_s = 1
    words = command_words(sys.executable, ("unshare", "--pid", "--fork", "--kill-child"))
    sent = opening(agent_program()).replace(b"alarm(%d)" % SILENCE_S, b"alarm(%d)" % silence_s)[:-1]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(sent)
        process.stdin.flush()
        try:
            code = process.wait(timeout=silence_s + 5)
        finally:
            process.kill()

    assert code == 1

"""A fleet over real SSH: hosts with an sshd and spaces of their own, each with another misfortune."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from probes.child import wait_until
from probes.json_types import JsonObject
from reports.run import Run, load_run
from reports.table import read_series
from tests.ssh_hosts import SshHosts, ssh_hosts

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("sshd"), pytest.mark.needs("ip")]

PLAN = "device: cpu\ncpu_devices: 1\nduration_s: 20\nonly: [matmul]\nmatmul: {formats: [fp32]}\n"
START_WITHIN_S = 15
SLEEP = 'sleep {seconds}; exec /bin/sh "$@"'
AHEAD_S = 30
AHEAD = 'sleep 11; LD_PRELOAD="{libraries}" FAKETIME=+{ahead_s} DONT_FAKE_MONOTONIC=1 exec /bin/sh "$@"'


@dataclass(frozen=True)
class Burned:
    """The run of the fleet, what was printed, and how the host that was cut off fared."""

    exit_code: int
    document: dict[str, Any]
    errors: str
    gone_s: float  # until nothing of ours ran any more on the host that was cut off

    @property
    def run(self) -> Run:
        return load_run(Path(self.document["run"]))

    def hosts(self) -> dict[str, JsonObject]:
        return {row["host"]: row for row in read_series(self.run, "host")}

    def findings(self, host: str) -> dict[str, JsonObject]:
        return {row["rule"]: row for row in read_series(self.run, "host_finding") if row["host"] == host}


def _group(hosts: SshHosts, name: str, **more: str) -> str:
    said = {"hosts": name, "address": hosts.hosts[name].address, "python": sys.executable, **more}
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in said.items()) + "}"


def _cut_in_load(run: Path, hosts: SshHosts, gone: list[float]) -> None:
    """Cut one host off as its load begins, and see how long its processes live."""
    events = run / "hosts" / "cut" / "events.ndjson"
    wait_until(lambda: events.exists() and '"stage":"matmul"' in events.read_text(), timeout_s=100)
    hosts.hosts["cut"].cut()
    began = time.monotonic()
    wait_until(lambda: not hosts.hosts["cut"].programs(), timeout_s=60)
    gone.append(time.monotonic() - began)


def _shell_with_a_fast_clock(folder: Path) -> str:
    """Return a login shell whose children see another wall clock; nobody's real clock is touched."""
    faketime = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if faketime is None or shutil.which("gcc") is None:
        return 'exec /bin/sh "$@"'
    sleep = folder / "real_sleep.so"
    source = Path(__file__).parents[2] / "twins" / "real_sleep.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", sleep, source], check=True)
    return AHEAD.format(libraries=f"{sleep} {faketime}", ahead_s=AHEAD_S)


@pytest.fixture(scope="module")
def burned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Burned]:
    folder = tmp_path_factory.mktemp("fleet")
    with ssh_hosts(folder / "hosts") as hosts:
        for name in ("healthy", "cut", "no-torch"):
            hosts.start(name)
        hosts.start("unknown", is_known=False)
        hosts.start("asleep", shell=SLEEP.format(seconds=START_WITHIN_S + 20))
        hosts.start("ahead", shell=_shell_with_a_fast_clock(folder))
        groups = [_group(hosts, name) for name in ("healthy", "cut", "unknown", "asleep", "ahead")]
        groups += [
            _group(hosts, "no-torch", python="python3"),
            "{hosts: nowhere, address: 127.0.0.1, port: 9}",
        ]
        text = "name: test\ndefaults: {permission: listed, user: root}\ngroups:\n"
        text += "".join(f"  - {group}\n" for group in groups)
        (folder / "fleet.yaml").write_text(text)
        (folder / "plan.yaml").write_text(PLAN)
        gone: list[float] = []
        latest = folder / "runs" / "latest"
        cutter = threading.Thread(target=_cut_in_load, args=(latest, hosts, gone))
        cutter.start()
        options = ["--plan", "plan.yaml", "--json", "--no-network", "--start-within-s", str(START_WITHIN_S)]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "overproof", "burnin", "run", "fleet.yaml", *options],
            cwd=folder,
            env=os.environ | hosts.environment(),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        cutter.join()
        assert done.stdout, done.stderr
        yield Burned(done.returncode, json.loads(done.stdout), done.stderr, gone[0])


def test_a_healthy_host_finishes_although_others_do_not(burned: Burned) -> None:
    row = burned.hosts()["healthy"]

    assert row["state"] == "finished"
    # Six hosts share the cores of this machine, which some rules on the load of a CPU notice.
    assert set(burned.findings("healthy")) <= {"load-reached", "speed-alone", "room"}
    assert (burned.run.path / row["run"] / "findings.ndjson").exists()


def test_a_host_that_is_cut_off_in_the_midst_is_lost_and_its_agent_leaves_by_itself(burned: Burned) -> None:
    row = burned.hosts()["cut"]

    assert (row["state"], row["outcome"]) == ("lost", "inconclusive")
    assert row["detail"] == "silent for 20 s"
    assert burned.findings("cut")["agent"]["observed"] == "silent for 20 s"
    assert burned.gone_s < 15  # and it had 20 s of load before it


def test_a_host_whose_key_is_not_known_is_refused_with_its_fingerprint(burned: Burned) -> None:
    row = burned.hosts()["unknown"]

    assert (row["state"], row["run"]) == ("refused", "")
    assert "its key is not known: ssh-ed25519 SHA256:" in row["detail"]


def test_a_login_shell_that_takes_too_long_is_named_as_such(burned: Burned) -> None:
    row = burned.hosts()["asleep"]

    assert row["state"] == "failed to start"
    assert "logged in, but no program began within 15 s; look at what the login shell does" in row["detail"]


def test_a_python_without_torch_leaves_the_host_undecided_and_says_what_to_do(burned: Burned) -> None:
    finding = burned.findings("no-torch")["devices"]

    assert finding["subject"] == "host:no-torch"
    assert finding["outcome"] == "inconclusive"
    assert "has no torch" in finding["observed"]
    assert "install PyTorch" in finding["next_step"]


def test_a_host_that_is_not_there_is_unreachable(burned: Burned) -> None:
    row = burned.hosts()["nowhere"]

    assert row["state"] == "unreachable"
    assert "connection refused" in row["detail"]


@pytest.mark.needs("faketime")
@pytest.mark.needs("gcc")
def test_a_clock_that_is_off_is_measured_past_a_slow_shell_and_times_are_corrected(burned: Burned) -> None:
    row = burned.hosts()["ahead"]
    own = load_run(burned.run.path / row["run"])
    started_ns = next(e.t_ns for e in burned.run.events_of("host.started") if e.data["subject"] == "ahead")
    agent_ns = own.events_of("agent.started")[0].t_ns
    raw_ns = next(
        json.loads(line)["t_ns"]
        for line in (own.path / "events.ndjson").read_text().splitlines()
        if '"agent.started"' in line
    )

    assert row["clock_offset_s"] == pytest.approx(AHEAD_S, abs=0.5)
    assert burned.findings("ahead")["host-clock"]["outcome"] == "fail"
    assert raw_ns - agent_ns == pytest.approx(AHEAD_S * 1e9, abs=5e8)
    assert 11e9 <= agent_ns - started_ns < 30e9
    ended_ns = own.events_of("agent.finished")[0].t_ns
    sampled = read_series(own, "matmul")
    assert sampled
    assert all(agent_ns < sample["t_ns"] < ended_ns for sample in sampled)
    assert [f.outcome for f in own.findings if f.rule == "slow-login"] == [None]


def test_the_verdict_names_every_host_and_is_no_pass(burned: Burned) -> None:
    told = {f["subject"]: f["outcome"] for f in burned.document["findings"] if f["rule"] == "host"}
    bad = {f"host:{name}" for name, row in burned.hosts().items() if row["outcome"] != "pass"}

    assert {subject for subject in told if subject.startswith("host:")} == bad
    assert len(burned.hosts()) == 7
    assert told["host:ahead"] == "fail"
    assert burned.document["outcome"] == "fail"
    assert burned.exit_code == 1


def test_the_record_holds_no_key_and_nothing_of_the_fleet_is_left_on_the_controller(burned: Burned) -> None:
    assert not any(
        b"PRIVATE KEY" in path.read_bytes() for path in burned.run.path.rglob("*") if path.is_file()
    )

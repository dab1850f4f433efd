"""Whole game days on real hosts, by the command line and at the same time: what each shows, its verdict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.experiments.hosts.days import write_day
from tests.experiments.hosts.real_hosts import base_of, real_hosts, start_host, start_program, target_of
from tests.processes import Job, start_job
from tests.ssh_hosts import SshHost, SshHosts

pytestmark = [pytest.mark.needs("root", "sshd", "ip"), pytest.mark.timeout(400)]  # several days at a time
SERVER = "^sleep 70002"
SUPERVISED = "while :; do sleep 70002; done"
UNDO_AFTER_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One game day and what it left."""

    status: int
    said: str
    run: Run
    hosts: list[SshHost]

    def finding(self, rule: str) -> Finding:
        """Return the one finding of a rule."""
        (found,) = [finding for finding in self.run.findings if finding.rule == rule]
        return found

    def armed(self) -> list[Path]:
        """Return what was ever armed on its hosts."""
        return [path for host in self.hosts for path in base_of(host).glob("armed/*")]


@dataclass(slots=True, kw_only=True)
class Days:
    """Starts game days and waits for them."""

    hosts: SshHosts
    folder: Path
    jobs: dict[str, tuple[Job, list[SshHost]]]

    def start(
        self,
        name: str,
        kind: str,
        program: str,
        arguments: JsonObject,
        *,
        is_allowed: bool = True,
        is_cut: bool = False,
        **extension: object,
    ) -> None:
        """Start one on two hosts of its own."""
        folder = self.folder / name
        hosts = [start_host(self.hosts, f"{name}-{n}", is_allowed=is_allowed) for n in (1, 2)]
        for host in hosts:
            start_program(host, program)
        path = write_day(kind, target_of(*hosts), folder, arguments=arguments, **extension)
        if is_cut:
            hosts[0].cut()
        self.jobs[name] = start_job(["gameday", "run", path.name], folder), hosts

    def end(self, name: str) -> Day:
        """Wait for one."""
        job, hosts = self.jobs[name]
        status = job.wait(timeout_s=300)
        (run,) = [path.parent for path in (self.folder / name / "runs").glob("*-gameday-*/run.json")]
        return Day(status=status, said=job.text(), run=load_run(run), hosts=hosts)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Days]:
    folder = tmp_path_factory.mktemp("days")
    kill = {"pattern": SERVER, "restart": ["sleep", "70002"], "undo_after_s": UNDO_AFTER_S}
    stop = {"pattern": SERVER, "undo_after_s": UNDO_AFTER_S}
    with real_hosts(folder / "hosts") as hosts:
        os.environ.pop("OVERPROOF_RUN", None)
        days = Days(hosts=hosts, folder=folder, jobs={})
        days.start("healed", "process-kill", SUPERVISED, kill, recovery_s=30)
        days.start("alone", "process-kill", "exec sleep 70002", kill, recovery_s=2)
        days.start("hung", "process-stop", SUPERVISED, stop, recovery_s=30)
        days.start("strange", "process-stop", SUPERVISED, stop, is_allowed=False)
        days.start("silent", "process-stop", SUPERVISED, stop | {"host": "silent-1"}, is_cut=True)
        yield days
        for job, _ in days.jobs.values():
            job.process.kill()
            job.process.wait()


def test_a_killed_process_that_its_supervisor_starts_again_passes(days: Days) -> None:
    day = days.end("healed")
    (entry,) = day.run.events_of("fault.healed")

    assert (day.status, day.run.outcome) == (0, Outcome.PASS), day.said
    assert "seen back after" in day.finding("redundancy").observed
    assert "runs again as pid" in entry.data["observed"]
    assert not any(finding.rule in ("traffic", "client", "recovery") for finding in day.run.findings)


def test_a_killed_process_that_only_undoing_starts_again_fails(days: Days) -> None:
    day = days.end("alone")

    assert (day.status, day.finding("redundancy").outcome) == (1, Outcome.FAIL), day.said
    assert "had not come back" in day.finding("redundancy").observed
    assert day.finding("undo").outcome is Outcome.PASS
    assert all("sleep 70002" in host.run("ps", "-eo", "args") for host in day.hosts)


def test_a_stopped_process_that_is_seen_stopped_and_goes_on_passes(days: Days) -> None:
    day = days.end("hung")

    assert (day.status, day.run.outcome) == (0, Outcome.PASS), day.said
    assert "is in state T" in day.finding("fault").observed
    assert day.finding("collateral").outcome is Outcome.PASS
    assert "goes on" in day.finding("undo").observed


def test_a_host_whose_owner_has_not_allowed_it_is_not_touched(days: Days) -> None:
    day = days.end("strange")

    assert day.status == 2, day.said
    assert "gameday-allowed" in day.said
    assert day.armed() == []
    assert not day.run.events_of("fault.armed")


def test_a_host_that_cannot_be_reached_is_named_and_nothing_is_touched(days: Days) -> None:
    day = days.end("silent")

    assert day.status == 3, day.said
    assert "silent-1" in day.said
    assert day.armed() == []
    assert day.run.outcome is not Outcome.PASS

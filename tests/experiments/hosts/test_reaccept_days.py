"""Back into service: after a game day on real hosts each that was hit is burned in, and judged by that."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from burnin.fleet.campaign import campaign_state, update_campaign
from experiments.host_agent.permission import why_taken
from experiments.hosts.choice import Target
from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from reports.reacceptance import OWN_DOING, runs_after
from reports.run import Run, load_run
from reports.table import read_series
from tests.experiments.hosts.bad_torch import bad_python
from tests.experiments.hosts.days import write_day
from tests.experiments.hosts.real_hosts import base_of, entry_of, real_hosts, start_host, start_program
from tests.processes import Job, start_job, wait_for
from tests.ssh_hosts import SshHost, SshHosts

pytestmark = [pytest.mark.needs("root", "sshd", "ip"), pytest.mark.timeout(400)]
SERVER = "^sleep 70004"
PLAN = "device: cpu\ncpu_devices: 1\nonly: [matmul]\nmatmul: {formats: [fp32]}\n"
LONG_S = 300.0  # longer than any test waits: it is ended before
# Of a CPU that others use as well; on a quiet machine none of them speaks.
OF_A_BUSY_MACHINE = {"load-reached", "speed-alone", "room", "host-clock"}


@dataclass(slots=True, kw_only=True)
class Started:
    """One game day under way, on hosts that are all hit."""

    job: Job
    folder: Path
    hosts: list[SshHost]

    def path(self) -> Path:
        """Return the folder of its run."""
        (found,) = [path.parent for path in (self.folder / "runs").glob("*-gameday-*/run.json")]
        return found

    def says(self, kind: str, times: int = 1) -> bool:
        """Say whether its timeline has an event so often."""
        said = [path.read_text() for path in (self.folder / "runs").glob("*-gameday-*/events.ndjson")]
        return sum(text.count(f'"{kind}"') for text in said) >= times

    def end(self) -> tuple[int, Run]:
        """Wait for it."""
        status = self.job.wait(timeout_s=160)
        return status, load_run(self.path())


def start(
    hosts: SshHosts, folder: Path, names: Sequence[str], python: Sequence[str | Path], load_s: float = 4
) -> Started:
    """Start a day that stops a process of each of these hosts for a moment."""
    found = [start_host(hosts, name) for name in names]
    for host in found:
        start_program(host, "exec sleep 70004")
    entries = [replace(entry_of(h), python=str(p)) for h, p in zip(found, python, strict=True)]
    folder.mkdir()
    (folder / "plan.yaml").write_text(PLAN)
    path = write_day(
        "process-stop",
        Target(hosts=tuple(entries), seed=1, run="run"),
        folder,
        arguments={"pattern": SERVER, "hosts": list(names), "undo_after_s": 60},
        recovery_s=30,
        max_share=1.0,
        reaccept={"profile": "gate", "duration_s": load_s, "plan": "plan.yaml"},
    )
    return Started(job=start_job(["gameday", "run", path.name], folder), folder=folder, hosts=found)


def _switch_off(day: Started) -> None:
    """Switch the last host off once both are as they were."""
    if wait_until(lambda: day.says("undo.verified", times=2), timeout_s=160):
        day.hosts[-1].process.kill()


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    folder = tmp_path_factory.mktemp("reaccept")
    with real_hosts(folder / "hosts") as hosts:
        os.environ.pop("OVERPROOF_RUN", None)
        broken = bad_python(folder / "broken")
        found = {"spoiled": start(hosts, folder / "spoiled", ["bad", "gone"], [broken, sys.executable])}
        cutter = threading.Thread(target=_switch_off, args=(found["spoiled"],))
        cutter.start()
        found["well"] = start(hosts, folder / "well", ["well"], [sys.executable])
        for name in ("killed", "stopped"):
            found[name] = start(hosts, folder / name, [name], [sys.executable], LONG_S)
        yield found
        for day in found.values():
            day.job.process.kill()
            day.job.process.wait()
        cutter.join()


def _reaccepted(run: Run) -> dict[str, Finding]:
    return {f.subject: f for f in run.findings if f.rule == "reaccepted"}


def _burn_in(run: Run) -> Run:
    (path,) = runs_after(run.path)
    return load_run(path)


def _is_burned_in(host: SshHost) -> bool:
    return any("burnin" in words for words in host.programs())


def test_no_burn_in_outlives_a_controller_that_is_killed(days: dict[str, Started]) -> None:
    day = days["killed"]
    (host,) = day.hosts
    wait_for(lambda: _is_burned_in(host), day.job, timeout_s=160, what="burn-in")
    taken = why_taken(base_of(host), "another day")

    day.job.process.kill()

    assert wait_until(lambda: not day.job.descendants(), timeout_s=30), day.job.descendants()
    assert wait_until(lambda: not _is_burned_in(host), timeout_s=30)
    assert not _reaccepted(load_run(day.path()))
    assert taken  # other game days were kept off it meanwhile
    assert wait_until(lambda: not why_taken(base_of(host), "another day"), timeout_s=30)


def test_a_day_that_is_stopped_in_its_burn_in_ends_it_and_is_undecided(days: dict[str, Started]) -> None:
    day = days["stopped"]
    (host,) = day.hosts
    wait_for(lambda: _is_burned_in(host), day.job, timeout_s=160, what="burn-in")

    day.job.signal(signal.SIGINT)
    status, run = day.end()

    finding = _reaccepted(run)["host:stopped"]
    assert (status, finding.outcome) == (130, Outcome.INCONCLUSIVE), day.job.text()
    assert "did not come to its end" in finding.observed
    assert _burn_in(run).state == "interrupted"
    assert wait_until(lambda: not _is_burned_in(host), timeout_s=30)


def test_a_host_that_passes_its_burn_in_afterwards_goes_back_into_service(days: dict[str, Started]) -> None:
    status, run = days["well"].end()
    burn_in, finding = _burn_in(run), _reaccepted(run)["host:well"]
    against = {row["rule"] for row in read_series(burn_in, "host_finding")}

    assert [row["state"] for row in read_series(burn_in, "host")] == ["finished"]
    assert finding.outcome is burn_in.outcome
    assert finding.evidence["run"] == str(burn_in.path)
    if finding.outcome is Outcome.PASS:
        assert (status, run.outcome) == (0, Outcome.PASS), days["well"].job.text()
    else:
        assert (finding.outcome, against <= OF_A_BUSY_MACHINE) == (Outcome.INCONCLUSIVE, True), against


def test_it_begins_only_after_everything_is_undone(days: dict[str, Started]) -> None:
    _, run = days["well"].end()
    (undone,) = run.events_of("undo.verified")
    (started,) = run.events_of("reaccept.started")

    assert undone.t_ns < started.t_ns < _burn_in(run).header.started_ns


def test_a_host_whose_burn_in_fails_stays_out_of_service(days: dict[str, Started]) -> None:
    status, run = days["spoiled"].end()
    finding = _reaccepted(run)["host:bad"]

    assert (status, finding.outcome) == (1, Outcome.FAIL), days["spoiled"].job.text()
    assert "exact" in finding.observed
    assert f"overproof burnin act {_burn_in(run).path} --drain" in finding.next_step
    assert finding.evidence[OWN_DOING] == []  # of the game day; the burn-in speaks for itself


def test_a_host_that_cannot_be_reached_for_its_burn_in_is_undecided(days: dict[str, Started]) -> None:
    _, run = days["spoiled"].end()
    finding = _reaccepted(run)["host:gone"]

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "unreachable" in finding.observed
    assert f"burnin run {_burn_in(run).path.parent}/fleet.yaml" in finding.next_step


def test_the_memory_of_lemons_hears_of_the_burn_in_and_not_of_our_fault(days: dict[str, Started]) -> None:
    _, run = days["spoiled"].end()

    entries, problems = update_campaign(run.path.parent, run.path.parent / "campaign.ndjson")
    states = {s.host: s for s in campaign_state(entries, {}, now_ns=_burn_in(run).header.started_ns + 10**12)}

    assert problems == []
    assert states["bad"].outcome == "fail"
    assert states["bad"].lemon.signals["single_node_failures"] == 1
    assert states["bad"].lemon.signals["gameday_trouble"] == 0
    assert not any(state.lemon.is_lemon for state in states.values())

"""Whole game days with faults of power and GPUs, by the command line and at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.experiments.hosts.days import write_day
from tests.experiments.hosts.real_hosts import real_hosts, start_host, target_of
from tests.experiments.hosts.rows import ROWS
from tests.processes import Job, start_job
from tests.ssh_hosts import SshHost, SshHosts

pytestmark = [pytest.mark.needs("root", "sshd", "ip"), pytest.mark.timeout(400)]  # several days at a time
KINDS = ("host.power", "gpu.clock-cap", "gpu.xid")


def start_day(hosts: SshHosts, kind: str, folder: Path) -> tuple[Job, list[SshHost]]:
    """Start the shipped experiment of a fault on two hosts of its own; the second one carries it out."""
    names = ["node-7", "bastion"] if kind == "host.power" else [f"{kind}-1", f"{kind}-2"]
    pair = [start_host(hosts, name, setup=ROWS[kind].setup) for name in names]
    arguments = ROWS[kind].arrange(pair[1]) | {"host": names[1], "undo_after_s": 60}
    path = write_day(kind.replace(".", "-"), target_of(*pair), folder / kind, arguments=arguments)
    document = yaml.safe_load(path.read_text())
    document["method"][1].pop("pauses", None)  # until a machine has booted
    document["extensions"][0].pop("alerts", None)  # the site's own
    path.write_text(yaml.safe_dump(document))
    return start_job(["gameday", "run", path.name], path.parent), pair


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str, Run]]]:
    folder = tmp_path_factory.mktemp("devices")
    jobs: dict[str, Job] = {}
    with real_hosts(folder / "hosts") as hosts:
        os.environ.pop("OVERPROOF_RUN", None)
        try:
            for kind in KINDS:
                jobs[kind], _ = start_day(hosts, kind, folder)
            seen = {}
            for kind, job in jobs.items():
                status = job.wait(timeout_s=300)
                (run,) = [path.parent for path in (folder / kind / "runs").glob("*-gameday-*/run.json")]
                seen[kind] = status, job.text(), load_run(run)
            yield seen
        finally:
            for job in jobs.values():
                job.process.kill()
                job.process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_the_fault_was_seen_and_the_other_host_is_untouched(
    kind: str, days: dict[str, tuple[int, str, Run]]
) -> None:
    status, said, run = days[kind]
    found = {finding.rule: finding for finding in run.findings}

    assert (status, run.outcome) == (0, Outcome.PASS), said
    assert found["fault"].outcome is found["collateral"].outcome is Outcome.PASS


def test_a_machine_is_hit_and_the_host_that_switched_it_is_the_bystander(
    days: dict[str, tuple[int, str, Run]],
) -> None:
    found = {finding.rule: finding for finding in days["host.power"][2].findings}

    assert found["fault"].observed == "node-7: its controller says: Chassis Power is off"
    assert found["collateral"].observed.startswith("bastion answer")
    assert "switched node-7 on" in found["undo"].observed


def test_what_cannot_be_undone_is_no_pass_of_undoing_and_what_was_seen_to_be_gone_is_one(
    days: dict[str, tuple[int, str, Run]],
) -> None:
    undone = {
        kind: next(finding for finding in run.findings if finding.rule == "undo")
        for kind, (_, _, run) in days.items()
    }

    assert undone["gpu.xid"].outcome is None
    assert "nothing can be undone" in undone["gpu.xid"].observed
    assert undone["gpu.clock-cap"].outcome is Outcome.PASS
    assert undone["host.power"].outcome is Outcome.PASS

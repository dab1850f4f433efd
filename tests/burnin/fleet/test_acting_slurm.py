"""Acting on a real Slurm: drained with the finding as its reason, given back after a pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.fleet.acting_run import Acted, ActRequest, act, read_slurm_nodes
from burnin.fleet.judging import judge_fleet
from reports.run import load_run
from reports.session import rejudge
from tests.burnin.fleet.fleet_record import FleetRecord, fails
from tests.slurm import Slurm

pytestmark = pytest.mark.needs("slurmctld", "slurmd", "munged")


class _Nodes(FleetRecord):
    """A fleet of the test Slurm's own nodes."""

    def names(self) -> list[str]:
        return [f"node{index + 1}" for index in range(self.hosts)]


def _act(folder: Path, *bad: str) -> list[Acted]:
    record = _Nodes(hosts=2, gpus=1, outcome=dict.fromkeys(bad, "fail"))
    record.findings = [fails(host, 'ecc "quoted" $(reboot)') for host in bad]
    run = record.write(folder / "runs")
    rejudge(run, judge_fleet)
    request = ActRequest(manager="slurm", log=folder / "log.ndjson", is_dry_run=False)
    return act(load_run(run.path), request)


def test_slurm_drains_what_failed_and_takes_it_back_once_it_passes(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)

    _act(tmp_path, "node2")
    drained = read_slurm_nodes()["node2"]
    slurm.ask("scontrol", "update", "nodename=node2", "state=drain", "reason=waiting for a fan")
    _act(tmp_path)
    theirs = slurm.state("node2")
    slurm.ask("scontrol", "update", "nodename=node2", "state=resume")
    _act(tmp_path, "node2")  # within the hour: the only one of this partition that may be drained was
    held = slurm.state("node2")

    assert drained.is_drained
    assert drained.partitions == {"main": 2}
    assert "host:node2: its burn-in came to fail: ecc" in drained.reason
    assert drained.reason.startswith("overproof 20")
    assert not set(drained.reason) & set("\"'$`")
    assert theirs.startswith("drain")
    assert held.startswith("idle")


def test_a_drain_of_ours_ends_with_a_pass(
    tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)

    _act(tmp_path, "node1")
    during = slurm.state("node1")
    _act(tmp_path)

    assert during.startswith("drain")
    assert slurm.state("node1").startswith("idle")  # with a star while slurmd is slow to answer

"""kill -9 of the controller: no process is left on any host, the record is readable, and it goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from reports.run import load_run
from reports.table import read_series
from tests.burnin.fleet.kills import GONE_WITHIN_S, complete, kill_among_ranks, kill_once, write_fleet
from tests.ssh_hosts import ssh_hosts

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("sshd"), pytest.mark.needs("ip")]
KILLS = 3


def test_a_controller_killed_again_and_again_leaves_nothing_and_its_run_is_completed(tmp_path: Path) -> None:
    chance = random.Random(7)
    with ssh_hosts(tmp_path / "hosts") as hosts:
        for name in ("one", "two"):
            hosts.start(name)
        write_fleet(tmp_path, hosts)
        arguments = ["fleet.yaml", "--plan", "plan.yaml"]
        for number in range(KILLS + 1):
            if number < KILLS:
                kill = kill_once(tmp_path, hosts, arguments, chance)
            else:
                kill = kill_among_ranks(tmp_path, hosts, arguments)
            assert kill.left == (), kill
            assert kill.gone_s < GONE_WITHIN_S
            assert kill.is_readable, (tmp_path / "log").read_text()
            arguments = ["--resume", "runs/latest"]
        document = complete(tmp_path, hosts)

    run = load_run(Path(str(document["run"])))
    assert run.state == "finished"
    assert {(row["host"], row["state"]) for row in read_series(run, "host")} == {
        ("one", "finished"),
        ("two", "finished"),
    }
    assert len(list((run.path / "attempts").iterdir())) == KILLS + 1
    # Both hosts had finished when they worked together: they are not burned in again.
    assert not list((run.path / "attempts" / str(KILLS + 1) / "hosts").iterdir())
    assert next(f for f in run.findings if f.rule == "completeness").outcome == "pass"
    trials = read_series(run, "net")
    assert trials
    assert {row["state"] for row in trials} == {"done"}, trials

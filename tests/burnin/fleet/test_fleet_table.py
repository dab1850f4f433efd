"""What is seen of a fleet while it runs: the worst hosts first, and all of them counted."""

from __future__ import annotations

from burnin.fleet.conductor import HostLine
from burnin.fleet.fleet_table import HEADERS, FleetTable
from probes.outcome import Outcome
from reports.exporter import render_page
from reports.live import Progress

LINES = {
    "node-1": HostLine(state="running", stage="matmul"),
    "node-2": HostLine(state="done", outcome=Outcome.PASS),
    "node-3": HostLine(state="done", detail="ecc", outcome=Outcome.FAIL),
    "node-4": HostLine(),
    "node-5": HostLine(),
}


def test_bad_hosts_stand_first_and_those_that_passed_are_left_out() -> None:
    rows = FleetTable(LINES, Progress("fleet", quiet=True)).rows()

    assert [row[0] for row in rows] == ["node-3", "node-1", "node-4", "node-5"]
    assert all(len(row) == len(HEADERS) for row in rows)


def test_hosts_are_counted_by_outcome_and_before_that_by_state() -> None:
    progress = Progress("fleet", quiet=True)
    table = FleetTable(LINES, progress)
    table.tell()
    page = render_page(table.figures()).decode().splitlines()

    assert sorted(line for line in page if not line.startswith("#")) == [
        'overproof_fleet_hosts{state="fail"} 1.0',
        'overproof_fleet_hosts{state="pass"} 1.0',
        'overproof_fleet_hosts{state="running"} 1.0',
        'overproof_fleet_hosts{state="waiting"} 2.0',
    ]
    assert progress.states() == {"5 hosts": "running", "node-3": "fail"}

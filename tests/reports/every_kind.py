"""A record of each kind of run, for tests of what every report page must hold to."""

from __future__ import annotations

from pathlib import Path

from burnin.fleet.judging import judge_fleet
from reports.run import Run, load_run
from reports.session import rejudge
from tests.burnin.fleet.fleet_record import FleetRecord, fails
from tests.reports.load_runs import Truth, record_run
from tests.reports.nodes import gpu_node
from tests.reports.recorded import game_day

KINDS = ("burnin", "load", "gameday", "fleet")


def record(kind: str, out: Path) -> Run:
    """Record a run of this kind."""
    if kind == "burnin":
        return gpu_node(out)
    if kind == "load":
        return record_run(out, 3, Truth(failed_share=0.05))
    if kind == "gameday":
        return game_day(out)
    record = FleetRecord(hosts=4, outcome={"gpu00002": "fail"})
    record.findings = [fails("gpu00002")]
    run = record.write(out)
    rejudge(run, judge_fleet)
    return load_run(run.path)

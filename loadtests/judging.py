"""Judges a recorded load run."""

from __future__ import annotations

from loadtests.workload import WorkloadSpec
from probes.finding import Finding
from probes.slo import judge_slos
from reports.run import Run
from reports.table import read_requests


def judge_run(run: Run) -> list[Finding]:
    """Return every finding about a load run."""
    workload = WorkloadSpec.model_validate(run.header.spec).to_workload()
    return judge_slos(workload.slos, read_requests(run.path))

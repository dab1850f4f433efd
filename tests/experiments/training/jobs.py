"""Training jobs for tests: small and quick ones, and what a test needs to see of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from experiments.training.job import JobClocks, JobPlan, job_command
from experiments.training.job_folder import (
    LOG_FILE,
    Job,
    progress_file,
    read_job,
    read_state,
    trains_in_full,
)
from probes.child import end_child, start_child, wait_until
from probes.json_types import JsonObject
from reports.run import read_ndjson

START_TIMEOUT_S = 120.0  # each process imports torch first, on a machine that may be busy
CLOCKS = JobClocks(node_lost_s=3, last_call_s=1, collective_timeout_s=3.0, end_grace_s=1.0, node_back_s=6.0)
PLAN = JobPlan(
    folder=Path(), nodes=2, ranks_per_node=1, step_s=0.03, checkpoint_every_steps=10, clocks=CLOCKS
)


@contextlib.contextmanager
def running_job(folder: Path, plan: JobPlan = PLAN) -> Iterator[Job]:
    """A job whose every rank trains, as a child of the test."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("w") as log:
        command = job_command(replace(plan, folder=folder), lifeline=True)
        child = start_child(command, stdout=log, stderr=log)
    try:
        assert wait_until(lambda: trains_in_full(folder), timeout_s=START_TIMEOUT_S), words_of(folder)
        yield read_job(folder)
    finally:
        end_child(child)


def words_of(folder: Path) -> str:
    """Return what a job's processes said."""
    return (folder / LOG_FILE).read_text(errors="replace")


def rows_of(job: Job, rank: int) -> list[JsonObject]:
    """Return a rank's steps."""
    return list(read_ndjson(progress_file(job.folder, rank)))


def all_pids(folder: Path) -> set[int]:
    """Return every process that a job names."""
    found: set[int] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            found.update([value["pid"]] if "pid" in value else [])
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                collect(one)

    state = read_state(folder)
    assert state is not None, "no job.json"
    collect(json.loads(json.dumps(state)))
    return found

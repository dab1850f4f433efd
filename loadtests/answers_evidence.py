"""Reads the answers to checked tasks from the record, and has them graded and judged."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.correctness import Answer, graded, judge_answers, judge_replica_answers, judge_same_text
from loadtests.plan import IDLE_ANSWERS
from loadtests.workload import Workload
from probes.finding import Finding
from probes.request import Request
from reports.run import Run
from reports.table import read_series, series_names


def judge_tasks(run: Run, workload: Workload, requests: Sequence[Request], *, subject: str) -> list[Finding]:
    """Return what the answers to checked tasks say; nothing where the workload has none.

    A request that failed is no answer: it counts as an error, and against the promises.
    """
    tasks = workload.tasks
    if tasks is None:
        return []
    seed = run.header.seed
    rows = read_series(run, IDLE_ANSWERS) if IDLE_ANSWERS in series_names(run) else []
    idle = [
        graded(row["number"], row["text"], index=-1, replica=row["replica"], tasks=tasks, seed=seed)
        for row in rows
        if not row["error"]
    ]
    load: list[Answer] = [
        graded(
            request.task, request.text, index=request.index, replica=request.replica, tasks=tasks, seed=seed
        )
        for request in requests
        if request.task is not None and request.error is None
    ]
    return [
        judge_answers(idle, load, tasks=tasks, seed=seed, subject=subject),
        judge_same_text(idle, load, is_batch_invariant=workload.endpoint.batch_invariant, subject=subject),
        *judge_replica_answers(idle, load, tasks=tasks, subject=subject),
    ]

"""Reads the answers to checked tasks from the record, and has them graded and judged."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.plan import IDLE_ANSWERS
from loadtests.rules.correctness import Answer, graded, judge_answers, judge_replica_answers, judge_same_text
from loadtests.rules.endpoint_judging import Group, hold_back
from loadtests.spec.workload import Workload
from loadtests.traffic.tasks import TaskPlan
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.request_columns import keep
from reports.run import Run
from reports.table import read_series, series_names


def judge_tasks(run: Run, workload: Workload, groups: Sequence[Group]) -> list[Finding]:
    """Return what the answers to checked tasks say; nothing where the workload has none.

    Of several endpoints each is held against its own answers when idle. A request that failed is no answer:
    it counts as an error, and against the promises.
    """
    tasks = workload.tasks
    if tasks is None:
        return []
    rows = read_series(run, IDLE_ANSWERS) if IDLE_ANSWERS in series_names(run) else []
    own = groups[1:] or groups  # the same task, asked of two endpoints, is no pair
    found = [_judge_group(run.header.seed, workload, tasks, group, rows) for group in own]
    doubt = 1 - tasks.confidence
    right = hold_back([one[0] for one in found], [one[0].evidence["p"] for one in found], doubt=doubt)
    return [*right, *(finding for one in found for finding in one[1:])]


def _judge_group(
    seed: int, workload: Workload, tasks: TaskPlan, group: Group, rows: Sequence[JsonObject]
) -> list[Finding]:
    idle = [
        graded(row["number"], row["text"], index=-1, replica=row["replica"], tasks=tasks, seed=seed)
        for row in rows
        if not row["error"] and (row.get("endpoint") or None) == group.name
    ]
    answered = keep(
        group.requests, "task", "error", where=lambda task, error: task is not None and error is None
    )
    load: list[Answer] = [
        graded(
            request.task, request.text, index=request.index, replica=request.replica, tasks=tasks, seed=seed
        )
        for request in answered
        if request.task is not None
    ]
    subject, is_batch_invariant = group.subject, workload.endpoint.batch_invariant
    return [
        judge_answers(idle, load, tasks=tasks, seed=seed, subject=subject),
        judge_same_text(idle, load, is_batch_invariant=is_batch_invariant, subject=subject),
        *judge_replica_answers(idle, load, tasks=tasks, subject=subject),
    ]

"""The moments of a training job's faults: noticed, new steps again, every rank back. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from experiments.impact.recovery import Detection, FaultSeen, Times
from probes.training_progress import STALL_S_MIN, Progress, find_progress, find_recovery_of
from probes.training_step import Step
from probes.training_straggler import STEPS_MIN, find_straggler

_SLOW_STEPS = 2 * STEPS_MIN  # in which a rank shows itself as the slow one


def find_training_times(rows: Sequence[Step], *, faults: Sequence[FaultSeen], end_ns: int) -> Times:
    """Derive the moments of at least one fault from the steps up to ``end_ns``."""
    t_inject_ns = min(fault.t_inject_ns for fault in faults)
    clocks = [fault.t_clock_ns for fault in faults]
    t_clock_ns = None if None in clocks else max(clock for clock in clocks if clock is not None)
    progress = find_progress(rows)
    resumed_ns = whole_ns = None
    if t_clock_ns is not None:
        stall = stall_s(progress, t_inject_ns)
        found = find_recovery_of(progress, t_clock_ns, end_ns=end_ns, stall_s=stall)
        resumed_ns = found.resumed_ns
        whole_ns = None if resumed_ns is None else _all_there(progress, t_inject_ns, resumed_ns)
    return Times(
        t_inject_ns=t_inject_ns,
        t_clock_ns=t_clock_ns,
        detection=_detection(rows, progress, t_inject_ns, end_ns),
        t_mitigate_ns=None,
        t_recover_ns=resumed_ns,
        t_redundant_ns=whole_ns,
        windows=(),
    )


def stall_s(progress: Progress, t_inject_ns: int) -> float:
    """Return the time without a step that is a stall, by what was typical before the fault."""
    return progress.between(0, t_inject_ns).stall_s() or STALL_S_MIN


def world_before(progress: Progress, t_inject_ns: int) -> int:
    """Return the ranks that the job had before the fault; 0: it made no step."""
    return max((step.world for step in progress.steps if step.t_ns < t_inject_ns), default=0)


def _all_there(progress: Progress, t_inject_ns: int, resumed_ns: int) -> int | None:
    """Return the first step that counts, once the job is back, with as many ranks as before the fault."""
    world = world_before(progress, t_inject_ns)
    later = (step for step in progress.steps if step.is_new and step.t_ns >= resumed_ns)
    return next((step.t_ns for step in later if step.world >= world), None)


def _detection(rows: Sequence[Step], progress: Progress, t_inject_ns: int, end_ns: int) -> Detection | None:
    """Return what first showed the fault, which cannot be before it."""
    found = [*_stalls(progress, t_inject_ns, end_ns), *_restarts(progress, t_inject_ns)]
    found += _slow_ranks(rows, t_inject_ns)
    return min(found, key=lambda detection: detection.t_ns, default=None)


def _stalls(progress: Progress, t_inject_ns: int, end_ns: int) -> list[Detection]:
    limit_ns = round(stall_s(progress, t_inject_ns) * 1e9)
    moments = [*(step.t_ns for step in progress.steps), end_ns]
    late = [before + limit_ns for before, after in pairwise(moments) if after - before >= limit_ns]
    return [
        Detection(t_ns=max(t, t_inject_ns), by="steps that do not come") for t in late if t >= t_inject_ns
    ]


def _restarts(progress: Progress, t_inject_ns: int) -> list[Detection]:
    return [
        Detection(t_ns=resume.first_ns, by="a job that began again")
        for resume in progress.resumes
        if resume.first_ns >= t_inject_ns
    ]


def _slow_ranks(rows: Sequence[Step], t_inject_ns: int) -> list[Detection]:
    """Look at the steps after the fault, some at a time, for a rank that the others wait for."""
    later = [row for row in rows if row.t_ns >= t_inject_ns and row.compute_s is not None]
    by_step: dict[tuple[int, int], list[Step]] = {}
    for row in later:
        by_step.setdefault((row.restart, row.step), []).append(row)
    groups = list(by_step.values())
    for i in range(0, len(groups) - STEPS_MIN + 1, STEPS_MIN):
        window = [row for group in groups[i : i + _SLOW_STEPS] for row in group]
        slow = find_straggler(window)
        if slow is not None:
            t_ns = max(row.t_ns for row in window)
            return [
                Detection(t_ns=t_ns, by=f"rank {slow.rank}, {slow.factor:.1f} times as slow as the others")
            ]
    return []

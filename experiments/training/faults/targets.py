"""Whom a fault on a training job hits: ranks or nodes, each a process by pid and start time."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.faults.fault import FaultRefused, Undoing
from experiments.faults.victims import processes_of
from experiments.lab.control import Process, process_from_json, process_to_json
from experiments.training.job_folder import Job, read_job, start_what_is_dead, trains_in_full
from probes.errors import TargetError
from probes.json_types import JsonObject

LEFT_MIN = 1  # ranks or nodes that must go on, or could
TRAINING_TIMEOUT_S = 55.0  # loss found, rendezvous, imports, first step; below what undoing waits for another
JOB_GONE = "nothing to do: the job itself is gone"
_POLL_S = 0.2


def capture_ranks(folder: Path, *, rank: int | None, count: int, seed: int) -> JsonObject:
    """Choose ``count`` ranks by seed, or the numbered one; return the state before.

    Raises:
        FaultRefused: there is no such rank, or too few others are.
        TargetError: no job runs there.
    """
    job = read_job(folder)
    there = {one.name: one.process for one in job.ranks}
    return capture_some(job, there, name="" if rank is None else f"rank-{rank}", count=count, seed=seed)


def capture_some(job: Job, there: dict[str, Process], *, name: str, count: int, seed: int) -> JsonObject:
    """Choose among named processes of a job; return the state before.

    Raises:
        FaultRefused: the named one is not there, or too few others are.
    """
    if name and name not in there:
        found = ", ".join(there) or "none"
        raise FaultRefused(f"training job {job.folder}: {name!r} does not train; those that do: {found}")
    if count < 1 or len(there) - count < LEFT_MIN:
        raise FaultRefused(
            f"training job {job.folder}: {len(there)} train and {count} would be hit; at least {LEFT_MIN} "
            "must be left"
        )
    chosen = {name} if name else set(random.Random(seed).sample(sorted(there), count))
    return capture_job(job) | {
        "seed": seed,
        "victims": [_identity(*one) for one in there.items() if one[0] in chosen],
        "others": [_identity(*one) for one in there.items() if one[0] not in chosen],
    }


def capture_job(job: Job) -> JsonObject:
    """Name a job so that undoing finds this one again, and no other in its folder."""
    return {"job": str(job.folder), "supervisor": process_to_json(job.supervisor)}


def _identity(name: str, process: Process) -> JsonObject:
    return {"name": name} | process_to_json(process)


def job_of(captured: JsonObject) -> Job:
    """Return the job that was chosen as it is now.

    Raises:
        TargetError: it is gone, whatever may run in its folder by now.
    """
    job = read_job(Path(captured["job"]))
    if job.supervisor != process_from_json(captured["supervisor"]):
        raise TargetError(f"training job {job.folder}: is another one by now")
    return job


def subject_of(captured: JsonObject) -> str:
    """Return the subject of findings about these victims."""
    return "+".join(str(victim["name"]) for victim in captured["victims"])


def recheck_targets(captured: JsonObject) -> None:
    """See at the last moment that the victims are those very processes of this job, and others are left."""
    job_of(captured)
    for victim in captured["victims"]:
        if not process_from_json(victim).is_alive:
            raise FaultRefused(f"{victim['name']}: is no longer the process that was chosen; nothing is hit")
    if captured["others"] and not any(process_from_json(other).is_alive for other in captured["others"]):
        raise FaultRefused(f"{subject_of(captured)}: no other is left by now; nothing is hit")


def send_to(victims: Sequence[JsonObject], number: signal.Signals) -> None:
    """Signal those very processes.

    Raises:
        FaultRefused: one was gone before.
    """
    for victim in victims:
        if not process_from_json(victim).send(number):
            raise FaultRefused(f"{victim['name']}: pid {victim['pid']} was gone before it was hit")


def undo_in_job(captured: JsonObject, restore: Callable[[], str]) -> Undoing:
    """Put back what a fault has changed, and wait until every rank trains on.

    ``restore`` says what it has done; empty: it found nothing to do.
    """
    if _is_gone(captured):
        return Undoing(is_restored=True, did=JOB_GONE, has_acted=False)
    began_ns = time.time_ns()
    done = [did] if (did := restore()) else []
    deadline = time.monotonic() + TRAINING_TIMEOUT_S
    while not trains_in_full(Path(captured["job"]), since_ns=began_ns):
        if _is_gone(captured):
            return Undoing(is_restored=True, did=JOB_GONE, has_acted=bool(done))
        if time.monotonic() >= deadline:
            vain = f"waited {TRAINING_TIMEOUT_S:g} s in vain for every rank to train"
            return Undoing(is_restored=False, did="; ".join([*done, vain]), has_acted=bool(done))
        for name in _start_lost_nodes(captured):
            if (did := f"started {name} again") not in done:
                done.append(did)
        time.sleep(_POLL_S)
    return Undoing(
        is_restored=True, did="; ".join(done) or "nothing to do: every rank trains", has_acted=bool(done)
    )


def _is_gone(captured: JsonObject) -> bool:
    return not process_from_json(captured["supervisor"]).is_alive


def _start_lost_nodes(captured: JsonObject) -> list[str]:
    try:
        job = job_of(captured)
    except TargetError:
        return []  # on its way out, which whoever waits will see
    lost = [node.name for node in job.nodes if node.agent is None]
    if lost:
        start_what_is_dead(job)
    return lost


def victims_alive(captured: JsonObject) -> list[Process]:
    """Return the victims that still run: one that was replaced is another process."""
    return [victim for victim in processes_of(captured) if victim.is_alive]

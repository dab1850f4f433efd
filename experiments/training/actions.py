"""Actions, rollbacks and probes for Chaos Toolkit, on the lab's training job.

As with those on the lab, an action arms a ledger before it breaks anything, under plain ``chaos run`` too.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from experiments.actions import FAULT_S_MAX
from experiments.actions import undo_faults as undo_faults
from experiments.chaos.run_context import OUT, record_folder, seed_or_drawn
from experiments.injecting.injection import inject_fault
from experiments.training.faults.targets import capture_ranks
from experiments.training.job_folder import FOLDER_NAME, read_job, trains_in_full
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.training import JOB_VARIABLE as JOB_VARIABLE


def kill_rank(job: str = "", rank: int | None = None, count: int = 1, seed: int | None = None) -> JsonObject:
    """Kill ranks, chosen by seed or by number, and see that they are gone."""
    from experiments.training.faults.ranks import KILL

    return inject_fault(KILL, _ranks(job, rank, count, seed), record_folder())


def hang_rank(job: str = "", rank: int | None = None, seed: int | None = None) -> JsonObject:
    """Stop a rank's process without ending it: the others wait for it in their next collective."""
    from experiments.training.faults.ranks import HANG

    return inject_fault(HANG, _ranks(job, rank, 1, seed), record_folder())


def slow_rank(
    job: str = "",
    rank: int | None = None,
    seed: int | None = None,
    stopped_share: float = 0.8,
    for_s: float = FAULT_S_MAX,
) -> JsonObject:
    """Let a rank run for only a part of the time, until undone or ``for_s`` seconds at most."""
    from experiments.faults.pressure import with_squeeze
    from experiments.training.faults.ranks import SLOW

    captured = with_squeeze(_ranks(job, rank, 1, seed), stopped_share=stopped_share, for_s=for_s)
    return inject_fault(SLOW, captured, record_folder())


def corrupt_checkpoint(job: str = "", rank: int | None = None, seed: int | None = None) -> JsonObject:
    """Kill a rank and flip bytes of the newest checkpoint, which the job would begin at."""
    from experiments.training.faults.checkpoint import CORRUPT, capture_checkpoint

    captured = capture_checkpoint(_job_folder(job), rank=rank, seed=seed_or_drawn(seed))
    return inject_fault(CORRUPT, captured, record_folder())


def lose_node(job: str = "", node: str = "", seed: int | None = None) -> JsonObject:
    """Kill a node's agent and its ranks at once."""
    from experiments.training.faults.node import LOSE, capture_node

    captured = capture_node(_job_folder(job), name=node, seed=seed_or_drawn(seed))
    return inject_fault(LOSE, captured, record_folder())


def cut_storage(job: str = "") -> JsonObject:
    """Have the storage give no more data, until undone."""
    from experiments.training.faults.storage import CUT, capture_storage

    return inject_fault(CUT, capture_storage(_job_folder(job)), record_folder())


def ranks_train(job: str = "", within_s: float = 5.0) -> JsonObject:
    """Say whether every rank is there and makes a step now, or within so many seconds."""
    folder, began, since_ns = _job_folder(job), time.monotonic(), time.time_ns()
    read_job(folder)  # none there is another answer than one that stands
    while not (trains := trains_in_full(folder, since_ns=since_ns)):
        if time.monotonic() - began >= within_s:
            break
        time.sleep(0.1)
    now = read_job(folder)
    return {
        "outcome": (Outcome.PASS if trains else Outcome.FAIL).value,
        "ranks": [rank.rank for rank in now.ranks],
        "wanted": now.world,
        "restarts": now.restarts,
        "waited_s": round(time.monotonic() - began, 3),
    }


def _ranks(job: str, rank: int | None, count: int, seed: int | None) -> JsonObject:
    return capture_ranks(_job_folder(job), rank=rank, count=count, seed=seed_or_drawn(seed))


def _job_folder(given: str) -> Path:
    """Find the job: the argument, else the game day's, else what ``lab train up`` left under runs/."""
    return Path(given or os.environ.get(JOB_VARIABLE) or OUT / FOLDER_NAME).resolve()

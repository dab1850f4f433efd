"""Storage that gives no data: it is stopped, connections stay open, and whoever asks waits."""

from __future__ import annotations

import signal
from pathlib import Path

from experiments.faults.fault import UNDO, Fault, FaultRefused, Verification
from experiments.lab.control import process_to_json
from experiments.training.faults.ranks import let_go_on, verify_stop
from experiments.training.faults.targets import (
    capture_job,
    recheck_targets,
    send_to,
    subject_of,
    undo_in_job,
)
from experiments.training.feed import Feed, NoData
from experiments.training.job_folder import read_job
from probes.json_types import JsonObject

ASK_S = 1.0  # without an answer to a question of our own


def capture_storage(folder: Path) -> JsonObject:
    """Name the storage's process.

    Raises:
        FaultRefused: there is none at the moment.
        TargetError: no job runs there.
    """
    job = read_job(folder)
    if job.storage is None or not job.storage.is_alive:
        raise FaultRefused(f"training job {folder}: its storage does not run")
    victim = {"name": "storage"} | process_to_json(job.storage)
    return capture_job(job) | {"victims": [victim], "others": []}


def verify_cut(captured: JsonObject) -> Verification:
    """See that it is stopped, and that a question of our own stays unanswered."""
    stopped = verify_stop(captured)
    if not stopped.is_verified:
        return stopped
    try:
        Feed(Path(captured["job"]), timeout_s=ASK_S).read_batch(0, 0)
    except NoData as error:
        return Verification(is_verified=True, observed=f"{stopped.observed}; {error}")
    return Verification(is_verified=False, observed=f"{stopped.observed}; and it gave a batch")


CUT = Fault(
    name="storage.cut",
    fidelity="P",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_targets,
    inject=lambda captured: send_to(captured["victims"], signal.SIGSTOP),
    verify=verify_cut,
    undo=lambda captured: undo_in_job(captured, lambda: let_go_on(captured)),
    needs=("a training job of `overproof lab train up`",),
    covers=("storage", "input-starvation"),
)

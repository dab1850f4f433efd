"""A checkpoint that is spoiled when it is needed: a rank is killed, and bytes of the newest one are flipped.

A spoiled checkpoint harms nobody until it is needed. The rank goes first: without it nothing newer is
written, so the one that is spoiled is the one that the job would take. What it was before is on the disk
before it is changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import signal
import time
from pathlib import Path

from experiments.faults.fault import PLATFORM, Fault, FaultRefused, Verification
from experiments.training.checkpoint import DATA_FILE, NEW, checkpoint_folder, read_checkpoint, saved_steps
from experiments.training.faults.ranks import verify_death
from experiments.training.faults.targets import (
    capture_ranks,
    recheck_targets,
    send_to,
    subject_of,
    undo_in_job,
)
from experiments.training.job_folder import CHECKPOINTS_FOLDER
from probes.child import wait_until
from probes.json_types import JsonObject
from reports.record import write_atomically

FLIPPED = 16  # bytes
WHOLE_MIN = 2  # so that there is one to fall back on
SETTLE_S = 0.3  # in which a rank that has ended its last step begins to write a checkpoint
WRITING_TIMEOUT_S = 1.0  # that writing one takes, unless it was the rank that was killed that wrote
_BEFORE = ".before-"


def capture_checkpoint(folder: Path, *, rank: int | None, seed: int) -> JsonObject:
    """Choose the rank whose death has the job look for a checkpoint, and name the folder of those.

    Raises:
        FaultRefused: too few checkpoints are whole, or ranks are there.
        TargetError: no job runs there.
    """
    captured = capture_ranks(folder, rank=rank, count=1, seed=seed)
    captured |= {"checkpoints": str(folder / CHECKPOINTS_FOLDER), "token": secrets.token_hex(8)}
    _refuse_without_reserve(captured)
    return captured


def recheck_checkpoint(captured: JsonObject) -> None:
    """See at the last moment that the rank is that one, and that the job has a checkpoint to fall back on."""
    recheck_targets(captured)
    _refuse_without_reserve(captured)


def _refuse_without_reserve(captured: JsonObject) -> None:
    folder = Path(captured["checkpoints"])
    whole = sum(not read_checkpoint(checkpoint_folder(folder, step))[1] for step in saved_steps(folder))
    if whole < WHOLE_MIN:
        raise FaultRefused(
            f"{folder}: {whole} checkpoints are whole; with fewer than {WHOLE_MIN} nothing would be left"
        )


def spoil_newest(captured: JsonObject) -> None:
    """Kill the rank, and spoil the checkpoint that the others would begin at."""
    send_to(captured["victims"], signal.SIGKILL)
    folder = Path(captured["checkpoints"])
    time.sleep(SETTLE_S)
    wait_until(lambda: not any(folder.glob(f"{NEW}*")), timeout_s=WRITING_TIMEOUT_S)
    step = saved_steps(folder)[0]
    path = checkpoint_folder(folder, step) / DATA_FILE
    data = path.read_bytes()
    places = sorted(random.Random(captured["seed"]).sample(range(len(data)), min(FLIPPED, len(data))))
    before = {
        "step": step,
        "bytes": {str(place): data[place] for place in places},
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    write_atomically(_before_file(captured), json.dumps(before) + "\n")
    _write_at(path, {place: data[place] ^ 0xFF for place in places})


def _before_file(captured: JsonObject) -> Path:
    return Path(captured["checkpoints"]) / f"{_BEFORE}{captured['token']}.json"


def _read_before(captured: JsonObject) -> JsonObject | None:
    try:
        before = json.loads(_before_file(captured).read_text())
    except FileNotFoundError:
        return None
    assert isinstance(before, dict)
    return before


def _write_at(path: Path, values: dict[int, int]) -> None:
    with path.open("r+b") as file:
        for place, value in values.items():
            file.seek(place)
            file.write(bytes([value]))
        file.flush()
        os.fsync(file.fileno())


def verify_spoiled(captured: JsonObject) -> Verification:
    """See that the newest checkpoint fails its checksum, and that the rank is gone."""
    dead, before = verify_death(captured), _read_before(captured)
    if before is None or not dead.is_verified:
        return Verification(is_verified=False, observed=f"{dead.observed}; nothing was spoiled")
    folder = Path(captured["checkpoints"])
    step = saved_steps(folder)[0]
    _, why = read_checkpoint(checkpoint_folder(folder, step))
    return Verification(
        is_verified=bool(why) and step == before["step"],
        observed=f"{dead.observed}; checkpoint of step {step}: {why or 'whole'}",
    )


def restore_bytes(captured: JsonObject) -> str:
    """Give the checkpoint its bytes again, unless the job has replaced it since; say what was done."""
    before = _read_before(captured)
    if before is None:  # never spoiled, or put back already
        return ""
    path = checkpoint_folder(Path(captured["checkpoints"]), before["step"]) / DATA_FILE
    did = ""
    if path.exists() and _is_spoiled(path.read_bytes(), before):
        _write_at(path, {int(place): value for place, value in before["bytes"].items()})
        did = f"gave the checkpoint of step {before['step']} its bytes again"
    _before_file(captured).unlink()
    return did


def _is_spoiled(data: bytes, before: JsonObject) -> bool:
    """Say whether this is what it was but for some of the places that were flipped."""
    if len(data) != before["size"] or hashlib.sha256(data).hexdigest() == before["sha256"]:
        return False
    mended = bytearray(data)
    for place, value in before["bytes"].items():
        mended[int(place)] = value
    return hashlib.sha256(mended).hexdigest() == str(before["sha256"])


CORRUPT = Fault(
    name="checkpoint.corrupt",
    fidelity="P",
    ends_by=PLATFORM,
    subject=lambda captured: f"checkpoint+{subject_of(captured)}",
    recheck=recheck_checkpoint,
    inject=spoil_newest,
    verify=verify_spoiled,
    undo=lambda captured: undo_in_job(captured, lambda: restore_bytes(captured)),
    needs=("a training job of `overproof lab train up` with two whole checkpoints",),
    covers=("checkpoint",),
    heals="the job: it passes over a checkpoint whose checksum is wrong and takes the one before",
)

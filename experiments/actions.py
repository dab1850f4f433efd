"""Actions, rollbacks and probes for Chaos Toolkit, on the lab.

Under ``overproof gameday run`` the environment names run, lab and seed. Under plain ``chaos run`` an action
arms a ledger of its own under ``runs/`` first, so that ``overproof gameday undo`` works there too.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from functools import cache
from pathlib import Path

from experiments.faults.replica import KILL, capture_replica
from experiments.injection import inject_fault, undo_pending
from experiments.lab_control import FOLDER_NAME, Lab, read_lab
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from probes.outcome import Outcome

RUN_VARIABLE = "OVERPROOF_RUN"  # folder of the game day's run
LAB_VARIABLE = "OVERPROOF_LAB"  # folder of the lab
SEED_VARIABLE = "OVERPROOF_SEED"
ENDPOINT_VARIABLE = "OVERPROOF_ENDPOINT"  # read by the experiment's configuration
OUT = Path("runs")  # where plain ``chaos run`` keeps ledgers and looks for a lab


def kill_replica(lab: str = "", replica: str = "", seed: int | None = None) -> JsonObject:
    """Kill one replica of the lab, chosen by seed or named, and see that it is gone.

    Returns the victim, named in the ledger before it was hit.
    """
    captured = capture_replica(_lab_folder(lab), replica=replica, seed=_seed(seed))
    return inject_fault(KILL, captured, _record_folder())


def restore_replicas() -> JsonObject:
    """Undo whatever this experiment has left pending, and see that it is restored.

    Raises:
        TargetError: something could not be restored.
    """
    undone = undo_pending(_record_folder(), by="rollback")
    failed = [u for u in undone if not u.is_restored]
    if failed:
        raise TargetError("; ".join(f"{u.entry.subject}: not restored: {u.did}" for u in failed))
    return {"undone": [{"subject": u.entry.subject, "did": u.did} for u in undone]}


def replicas_serve(lab: str = "", replicas_min: int = 0) -> JsonObject:
    """Say whether the lab's replicas serve: all of them, or at least so many."""
    return _judge_replicas(read_lab(_lab_folder(lab)), replicas_min)


def replicas_recovered(lab: str = "", within_s: float = 30.0, replicas_min: int = 0) -> JsonObject:
    """Wait, at most so long, until the lab's replicas serve again without our help."""
    began = time.monotonic()
    while True:
        answer = _judge_replicas(read_lab(_lab_folder(lab)), replicas_min)
        waited_s = time.monotonic() - began
        if answer["outcome"] == Outcome.PASS.value or waited_s >= within_s:
            return answer | {"waited_s": round(waited_s, 3)}
        time.sleep(0.1)


def _judge_replicas(lab: Lab, replicas_min: int) -> JsonObject:
    wanted = replicas_min or len(lab.replicas)
    serving = [replica.name for replica in lab.serving]
    outcome = Outcome.PASS if len(serving) >= wanted else Outcome.FAIL
    return {"outcome": outcome.value, "serving": serving, "wanted": wanted}


def _lab_folder(given: str) -> Path:
    """Find the lab: the argument, else the game day's, else the one that ``lab up`` left under runs/."""
    return Path(given or os.environ.get(LAB_VARIABLE) or OUT / FOLDER_NAME).resolve()


def _seed(given: int | None) -> int:
    text = os.environ.get(SEED_VARIABLE)
    if given is not None:
        return given
    try:
        return random.SystemRandom().randrange(2**31) if text is None else int(text)
    except ValueError as error:
        raise ConfigError(f"{SEED_VARIABLE}: wanted a whole number, got {text!r}") from error


def _record_folder() -> Path:
    run = os.environ.get(RUN_VARIABLE)
    return Path(run) if run else _own_folder()


@cache
def _own_folder() -> Path:
    """Make this process's own folder for ledger and timeline, as under plain ``chaos run``."""
    folder = OUT / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-chaos-{secrets.token_hex(2)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: no ledger can be kept there, so nothing is injected: {error}"
        ) from error
    return folder.resolve()

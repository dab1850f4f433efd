"""Faults on one replica of the lab. The victim is a process by pid and start time, so no other can be hit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from experiments.faults.fault import Fault, FaultRefused, Undoing, Verification
from experiments.lab_control import (
    Lab,
    Process,
    Replica,
    process_from_json,
    process_to_json,
    read_lab,
    start_replica,
)
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject

DEATH_TIMEOUT_S = 5.0
SERVING_TIMEOUT_S = 30.0  # back-off, start and model load of a replica, with room for a busy machine
SETTLE_S = 0.3
LEFT_SERVING_MIN = 1  # replicas that must go on serving while the victim is down


def capture_replica(lab_folder: Path, *, replica: str, seed: int) -> JsonObject:
    """Choose the victim by seed among the serving replicas, or take the named one; return the state before.

    Raises:
        FaultRefused: there is no such replica, it does not serve, or too few others do.
        TargetError: no lab runs there.
    """
    lab = read_lab(lab_folder)
    victim = _choose(lab, replica, seed)
    captured = {
        "lab": str(lab_folder),
        "supervisor": process_to_json(lab.supervisor),
        "replica": victim.name,
        "seed": seed,
        "others": [_identity(other) for other in lab.replicas if other.name != victim.name],
    }
    return captured | _identity(victim)


def _choose(lab: Lab, name: str, seed: int) -> Replica:
    serving = {replica.name: replica for replica in lab.serving}
    if name and name not in serving:
        there = ", ".join(sorted(serving)) or "none"
        raise FaultRefused(f"lab {lab.folder}: replica {name!r} does not serve; those that do: {there}")
    if len(serving) <= LEFT_SERVING_MIN:
        raise FaultRefused(
            f"lab {lab.folder}: {len(serving)} replicas serve; at least {LEFT_SERVING_MIN} must be left"
        )
    return serving[name or random.Random(seed).choice(sorted(serving))]


def _identity(replica: Replica) -> JsonObject:
    process = process_to_json(replica.process) if replica.process else {"pid": None, "start_time": None}
    return {"name": replica.name} | process


def recheck_replica(captured: JsonObject) -> None:
    """See at the last moment that the victim is still that process and that enough others serve."""
    lab = read_lab(Path(captured["lab"]))
    victim = lab.replica(captured["replica"])
    if victim is None or victim.process != process_from_json(captured):
        raise FaultRefused(f"{captured['replica']}: is no longer the process that was chosen; nothing is hit")
    others = [replica for replica in lab.serving if replica.name != victim.name]
    if len(others) < LEFT_SERVING_MIN:
        raise FaultRefused(f"{captured['replica']}: no other replica serves by now; nothing is hit")


def kill_victim(captured: JsonObject) -> None:
    """Send SIGKILL to that very process."""
    if not process_from_json(captured).send(signal.SIGKILL):
        raise FaultRefused(f"{captured['replica']}: pid {captured['pid']} was gone before it was hit")


def verify_death(captured: JsonObject, *, timeout_s: float = DEATH_TIMEOUT_S) -> Verification:
    """See that the very process that was chosen is gone; a new one under its name is another process."""
    victim = process_from_json(captured)
    is_gone = wait_until(lambda: not victim.is_alive, timeout_s=timeout_s, interval_s=0.01)
    state = "is gone" if is_gone else f"still runs {timeout_s:g} s later"
    return Verification(is_verified=is_gone, observed=f"{captured['replica']}: pid {victim.pid} {state}")


def undo_kill(captured: JsonObject) -> Undoing:
    """See that the replica serves; start it where its lab does not do so by itself."""
    folder, name = Path(captured["lab"]), str(captured["replica"])
    supervisor = process_from_json(captured["supervisor"])
    try:
        return _restore(folder, name, supervisor, process_from_json(captured))
    except TargetError:
        # A lab on its way out refuses before it is gone.
        if wait_until(lambda: not supervisor.is_alive, timeout_s=DEATH_TIMEOUT_S):
            return Undoing(is_restored=True, did="nothing to do: the lab itself is gone", has_acted=False)
        raise


def _restore(folder: Path, name: str, supervisor: Process, victim: Process) -> Undoing:
    if not supervisor.is_alive:
        return Undoing(is_restored=True, did="nothing to do: the lab itself is gone", has_acted=False)
    if victim.is_alive:
        time.sleep(SETTLE_S)  # a kill sent just now, by whoever crashed after it, takes effect first
    lab = read_lab(folder)
    has_acted = _needs_start(lab, name)
    if has_acted:
        start_replica(folder, name)
    if not wait_until(lambda: _serves(folder, name), timeout_s=SERVING_TIMEOUT_S, interval_s=0.1):
        return Undoing(is_restored=False, did=f"waited {SERVING_TIMEOUT_S:g} s in vain", has_acted=has_acted)
    replica = read_lab(folder).replica(name)
    pid = replica.pid if replica else None
    if pid == victim.pid:
        return Undoing(is_restored=True, did=f"nothing to do: pid {pid} was never hit", has_acted=False)
    if has_acted:
        return Undoing(is_restored=True, did=f"started {name} again (pid {pid})", has_acted=True)
    return Undoing(is_restored=True, did=f"nothing to do: the lab restarted it (pid {pid})", has_acted=False)


def _needs_start(lab: Lab, name: str) -> bool:
    replica = lab.replica(name)
    return replica is not None and replica.process is None and not lab.is_restarting


def _serves(folder: Path, name: str) -> bool:
    replica = read_lab(folder).replica(name)
    return replica is not None and replica.is_serving


def _subject(captured: JsonObject) -> str:
    return f"replica:{captured['replica']}"


KILL = Fault(
    name="replica.kill",
    fidelity="P",
    subject=_subject,
    recheck=recheck_replica,
    inject=kill_victim,
    verify=verify_death,
    undo=undo_kill,
)

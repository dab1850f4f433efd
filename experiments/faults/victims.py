"""Whom a fault on the lab hits: replicas, chosen by name or by seed, each a process by pid and start time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from experiments.faults.fault import FaultRefused, Undoing
from experiments.lab.control import (
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

LEFT_SERVING_MIN = 1  # replicas that must go on serving while the victims are down
SERVING_TIMEOUT_S = 30.0  # back-off, start and model load of a replica, with room for a busy machine
A_LAB = "a lab of ours"  # what faults on it need
SUPERVISOR = "the lab's supervisor"  # who heals what it starts again
LIVENESS = "the lab's liveness check"
LAB_GONE = "nothing to do: the lab itself is gone"
_LEAVE_TIMEOUT_S = 5.0


def capture_victims(lab_folder: Path, *, replica: str = "", count: int = 1, seed: int) -> JsonObject:
    """Choose ``count`` victims by seed among the serving replicas, or the named one; return the state before.

    Raises:
        FaultRefused: there is no such replica, it does not serve, or too few others do.
        TargetError: no lab runs there.
    """
    lab = read_lab(lab_folder)
    chosen = {victim.name for victim in _choose(lab, replica, count, seed)}
    return capture_lab(lab) | {
        "seed": seed,
        "victims": [identity(r) for r in lab.replicas if r.name in chosen],
        "others": [identity(r) for r in lab.replicas if r.name not in chosen],
    }


def capture_lab(lab: Lab) -> JsonObject:
    """Name a lab so that undoing finds this one again, and no other in its folder."""
    return {"lab": str(lab.folder), "supervisor": process_to_json(lab.supervisor)}


def _choose(lab: Lab, name: str, count: int, seed: int) -> list[Replica]:
    serving = {replica.name: replica for replica in lab.serving}
    if name and name not in serving:
        there = ", ".join(sorted(serving)) or "none"
        raise FaultRefused(f"lab {lab.folder}: replica {name!r} does not serve; those that do: {there}")
    if count < 1 or len(serving) - count < LEFT_SERVING_MIN:
        raise FaultRefused(
            f"lab {lab.folder}: {len(serving)} replicas serve and {count} would be hit; at least "
            f"{LEFT_SERVING_MIN} of each must be left"
        )
    names = [name] if name else random.Random(seed).sample(sorted(serving), count)
    return [serving[n] for n in names]


def identity(replica: Replica) -> JsonObject:
    """Return a replica's name and what names its process."""
    process = process_to_json(replica.process) if replica.process else {"pid": None, "start_time": None}
    return {"name": replica.name} | process


def names_of(captured: JsonObject) -> list[str]:
    """Return the victims' names."""
    return [str(victim["name"]) for victim in captured["victims"]]


def subject_of(captured: JsonObject) -> str:
    """Return the subject of findings about these victims."""
    return f"replica:{'+'.join(names_of(captured))}"


def processes_of(captured: JsonObject) -> list[Process]:
    """Return the victims' processes as they were chosen."""
    return [process_from_json(victim) for victim in captured["victims"]]


def recheck_victims(captured: JsonObject) -> None:
    """See at the last moment that each victim is still that process and that enough others serve."""
    lab = read_lab(Path(captured["lab"]))
    for victim in captured["victims"]:
        there = lab.replica(str(victim["name"]))
        if there is None or there.process != process_from_json(victim):
            raise FaultRefused(f"{victim['name']}: is no longer the process that was chosen; nothing is hit")
    others = [replica for replica in lab.serving if replica.name not in names_of(captured)]
    if len(others) < LEFT_SERVING_MIN:
        raise FaultRefused(f"{subject_of(captured)}: no other replica serves by now; nothing is hit")


def undo_in_lab(captured: JsonObject, restore: Callable[[], Undoing]) -> Undoing:
    """Run an undo against the lab that was hit; there is nothing to do where that lab is gone."""
    supervisor = process_from_json(captured["supervisor"])
    gone = Undoing(is_restored=True, did=LAB_GONE, has_acted=False)
    if not supervisor.is_alive:
        return gone
    try:
        return restore()
    except TargetError:
        # A lab on its way out refuses before it is gone.
        if wait_until(lambda: not supervisor.is_alive, timeout_s=_LEAVE_TIMEOUT_S):
            return gone
        raise


def see_serving(captured: JsonObject, *, did: str = "") -> Undoing:
    """Wait until every victim serves; start what its lab does not start by itself; say what that took.

    ``did`` is what undoing has done before; empty: nothing.
    """
    folder = Path(captured["lab"])
    lab = read_lab(folder)
    started = [name for name in names_of(captured) if _needs_start(lab, name)]
    for name in started:
        start_replica(folder, name)
    if not wait_until(lambda: _all_serve(captured), timeout_s=SERVING_TIMEOUT_S, interval_s=0.1):
        vain = f"waited {SERVING_TIMEOUT_S:g} s in vain"
        return Undoing(is_restored=False, did=vain, has_acted=bool(did or started))
    lab = read_lab(folder)
    became = (_became(lab, victim, is_ours=victim["name"] in started) for victim in captured["victims"])
    return Undoing(is_restored=True, did=did or "; ".join(became), has_acted=bool(did or started))


def _needs_start(lab: Lab, name: str) -> bool:
    replica = lab.replica(name)
    return replica is not None and replica.process is None and not lab.is_restarting


def _all_serve(captured: JsonObject) -> bool:
    lab = read_lab(Path(captured["lab"]))
    return all((r := lab.replica(name)) is not None and r.is_serving for name in names_of(captured))


def _became(lab: Lab, victim: JsonObject, *, is_ours: bool) -> str:
    replica = lab.replica(str(victim["name"]))
    pid = replica.pid if replica else None
    if is_ours:
        return f"started {victim['name']} again (pid {pid})"
    if pid == victim["pid"]:
        return f"nothing to do: pid {pid} still serves"
    return f"nothing to do: the lab restarted it (pid {pid})"

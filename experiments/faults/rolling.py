"""A rolling restart under load: each replica in turn is drained, ended and waited for."""

from __future__ import annotations

import signal
from pathlib import Path

from experiments.faults.fault import PLATFORM, Fault, FaultRefused, Undoing, Verification
from experiments.faults.victims import (
    A_LAB,
    SERVING_TIMEOUT_S,
    SUPERVISOR,
    capture_lab,
    identity,
    processes_of,
    see_serving,
    subject_of,
    undo_in_lab,
)
from experiments.lab.control import Lab, ask_lab, process_from_json, read_lab
from probes.child import wait_until
from probes.json_types import JsonObject

DRAIN_TIMEOUT_S = 10.0


def capture_all(lab_folder: Path) -> JsonObject:
    """Name every replica of a lab in which all of them serve.

    Raises:
        FaultRefused: one does not serve, or there is only one.
    """
    lab = read_lab(lab_folder)
    if len(lab.serving) < max(2, len(lab.replicas)):
        raise FaultRefused(f"lab {lab.folder}: {len(lab.serving)} of {len(lab.replicas)} replicas serve")
    return capture_lab(lab) | {
        "victims": [identity(replica) for replica in lab.replicas],
        "others": [],
        "at_once": 1,
    }


def recheck_all(captured: JsonObject) -> None:
    """See at the last moment that every replica still serves."""
    lab = read_lab(Path(captured["lab"]))
    if [r.process for r in lab.serving] != processes_of(captured):
        raise FaultRefused(f"lab {lab.folder}: not the replicas that were chosen; nothing is restarted")


def restart_in_turn(captured: JsonObject) -> None:
    """Drain one, end it, wait until it serves as another process; then the next.

    A rollout stops at the first that does not come back; looking afterwards says how far it got.
    """
    for victim in captured["victims"]:
        if not _restart(Path(captured["lab"]), victim):
            return


def _restart(folder: Path, victim: JsonObject) -> bool:
    name = str(victim["name"])
    ask_lab(folder, {"do": "drain", "replica": name, "is_draining": True})
    wait_until(lambda: _in_flight(read_lab(folder), name) == 0, timeout_s=DRAIN_TIMEOUT_S)
    process_from_json(victim).send(signal.SIGTERM)
    return wait_until(lambda: _is_replaced(read_lab(folder), victim), timeout_s=SERVING_TIMEOUT_S)


def _in_flight(lab: Lab, name: str) -> int:
    replica = lab.replica(name)
    return replica.in_flight if replica else 0


def _is_replaced(lab: Lab, victim: JsonObject) -> bool:
    replica = lab.replica(str(victim["name"]))
    return replica is not None and replica.is_serving and replica.pid != victim["pid"]


def verify_replaced(captured: JsonObject) -> Verification:
    """See that every replica serves as another process than before."""
    lab = read_lab(Path(captured["lab"]))
    left = [str(v["name"]) for v in captured["victims"] if not _is_replaced(lab, v)]
    done = len(captured["victims"]) - len(left)
    return Verification(
        is_verified=not left,
        observed=f"{done} of {len(captured['victims'])} replicas restarted one after the other",
    )


def undo_restart(captured: JsonObject) -> Undoing:
    """Take back whatever draining is left, and see all replicas serve."""

    def restore() -> Undoing:
        lab = read_lab(Path(captured["lab"]))
        draining = [replica.name for replica in lab.replicas if replica.is_draining]
        for name in draining:
            ask_lab(lab.folder, {"do": "drain", "replica": name, "is_draining": False})
        return see_serving(captured, did=f"let {', '.join(draining)} have requests" if draining else "")

    return undo_in_lab(captured, restore)


ROLLING_RESTART = Fault(
    name="replicas.restart",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_all,
    inject=restart_in_turn,
    verify=verify_replaced,
    undo=undo_restart,
    needs=(A_LAB,),
    covers=("planned-restart",),
    heals=SUPERVISOR,
)

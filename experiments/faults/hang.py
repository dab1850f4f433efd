"""A replica that hangs: its process is stopped, its connections stay open, and nothing says so."""

from __future__ import annotations

import signal

from experiments.faults.fault import PLATFORM, Fault, FaultRefused, Undoing, Verification
from experiments.faults.victims import (
    A_LAB,
    LIVENESS,
    processes_of,
    recheck_victims,
    see_serving,
    subject_of,
    undo_in_lab,
)
from experiments.lab.control import process_from_json
from probes.child import process_state, wait_until
from probes.json_types import JsonObject

VERIFY_TIMEOUT_S = 2.0
_STOPPED = ("T", "t")


def stop_victims(captured: JsonObject) -> None:
    """Send SIGSTOP to those very processes."""
    for victim in captured["victims"]:
        if not process_from_json(victim).send(signal.SIGSTOP):
            raise FaultRefused(f"{victim['name']}: pid {victim['pid']} was gone before it was hit")


def verify_stop(captured: JsonObject) -> Verification:
    """See in the kernel's own words that the processes are stopped."""
    pids = [victim.pid for victim in processes_of(captured)]
    is_seen = wait_until(
        lambda: all(process_state(pid) in _STOPPED for pid in pids),
        timeout_s=VERIFY_TIMEOUT_S,
        interval_s=0.01,
    )
    states = ", ".join(f"pid {pid} is in state {process_state(pid) or 'gone'}" for pid in pids)
    return Verification(is_verified=is_seen, observed=f"{subject_of(captured)}: {states}")


def undo_stop(captured: JsonObject) -> Undoing:
    """Let those that are still stopped go on; one that was replaced is left alone."""

    def restore() -> Undoing:
        alive = [victim for victim in processes_of(captured) if victim.is_alive]
        stopped = [victim for victim in alive if process_state(victim.pid) in _STOPPED]
        for victim in alive:
            # Also to one that does not look stopped: a SIGSTOP may be on its way, and this ends it.
            victim.send(signal.SIGCONT)
        pids = ", ".join(str(victim.pid) for victim in stopped)
        return see_serving(captured, did=f"let pid {pids} go on" if stopped else "")

    return undo_in_lab(captured, restore)


HANG = Fault(
    name="replica.hang",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_victims,
    inject=stop_victims,
    verify=verify_stop,
    undo=undo_stop,
    needs=(A_LAB,),
    covers=("hang",),
    heals=LIVENESS,
)

"""Killing replicas of the lab."""

from __future__ import annotations

import signal
import time

from experiments.faults.fault import PLATFORM, Fault, FaultRefused, Undoing, Verification
from experiments.faults.victims import (
    A_LAB,
    SUPERVISOR,
    processes_of,
    recheck_victims,
    see_serving,
    subject_of,
    undo_in_lab,
)
from experiments.lab.control import process_from_json
from probes.child import wait_until
from probes.json_types import JsonObject

DEATH_TIMEOUT_S = 5.0
SETTLE_S = 0.3


def kill_victims(captured: JsonObject) -> None:
    """Send SIGKILL to those very processes."""
    for victim in captured["victims"]:
        if not process_from_json(victim).send(signal.SIGKILL):
            raise FaultRefused(f"{victim['name']}: pid {victim['pid']} was gone before it was hit")


def verify_death(captured: JsonObject, *, timeout_s: float = DEATH_TIMEOUT_S) -> Verification:
    """See that the very processes that were chosen are gone; a new one under a name is another process."""
    victims = processes_of(captured)
    wait_until(lambda: not any(v.is_alive for v in victims), timeout_s=timeout_s, interval_s=0.01)
    alive = [victim.pid for victim in victims if victim.is_alive]
    pids = ", ".join(str(victim.pid) for victim in victims)
    state = f"{alive} still runs {timeout_s:g} s later" if alive else "is gone"
    return Verification(is_verified=not alive, observed=f"{subject_of(captured)}: pid {pids} {state}")


def undo_kill(captured: JsonObject) -> Undoing:
    """See that the replicas serve; start them where their lab does not do so by itself."""

    def restore() -> Undoing:
        if any(victim.is_alive for victim in processes_of(captured)):
            time.sleep(SETTLE_S)  # a kill sent just now, by whoever crashed after it, takes effect first
        return see_serving(captured)

    return undo_in_lab(captured, restore)


KILL = Fault(
    name="replica.kill",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_victims,
    inject=kill_victims,
    verify=verify_death,
    undo=undo_kill,
    needs=(A_LAB,),
    covers=("software-crash",),
    heals=SUPERVISOR,
)

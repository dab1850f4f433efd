"""A spot interruption: a warning, some time to drain, then the machine is gone and comes back only later."""

from __future__ import annotations

import time
from pathlib import Path

from experiments.faults.fault import PLATFORM, Fault, Undoing
from experiments.faults.replica import kill_victims, verify_death
from experiments.faults.victims import (
    A_LAB,
    SUPERVISOR,
    names_of,
    recheck_victims,
    see_serving,
    subject_of,
    undo_in_lab,
)
from experiments.lab.control import ask_lab
from probes.json_types import JsonObject


def with_notice(captured: JsonObject, *, notice_s: float, away_s: float) -> JsonObject:
    """Add how long before its end a victim is warned, and how long its machine stays away."""
    return captured | {"notice_s": notice_s, "away_s": away_s}


def interrupt_victims(captured: JsonObject) -> None:
    """Warn, wait, and take the machines away."""
    _order(captured, "drain", is_draining=True)
    time.sleep(captured["notice_s"])
    _order(captured, "away", for_s=captured["away_s"])
    kill_victims(captured)


def _order(captured: JsonObject, do: str, **more: object) -> None:
    for name in names_of(captured):
        ask_lab(Path(captured["lab"]), {"do": do, "replica": name} | more)


def undo_interruption(captured: JsonObject) -> Undoing:
    """Take the warning back, bring the machines back, and see the replicas serve."""

    def restore() -> Undoing:
        _order(captured, "drain", is_draining=False)
        _order(captured, "away", for_s=0.0)
        return see_serving(captured)

    return undo_in_lab(captured, restore)


SPOT = Fault(
    name="replica.spot",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_victims,
    inject=interrupt_victims,
    verify=verify_death,
    undo=undo_interruption,
    needs=(A_LAB,),
    covers=("host-down",),
    heals=SUPERVISOR,
)

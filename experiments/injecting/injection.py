"""The one order in which a fault is injected: name the victim, arm the ledger, look again, hit, verify."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from experiments.faults.fault import Fault, Undoing, load_fault
from experiments.injecting.bounds import being_planned, check_bounds
from experiments.injecting.crash_points import crash_around
from experiments.injecting.ledger import INJECTED, UNDO_FAILED, UNDONE, VERIFIED, Entry, Ledger, read_ledger
from experiments.live.timeline import Timeline
from probes.errors import RecordError, SuiteError, TargetError
from probes.json_types import JsonObject

ALONE_TIMEOUT_S = 60.0  # for another process that is undoing; longer than one undo may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What became of one pending entry."""

    entry: Entry
    is_restored: bool
    did: str


def inject_fault(fault: Fault, captured: JsonObject, folder: Path) -> JsonObject:
    """Inject a fault whose victim and prior state are captured; return what a journal should keep.

    Raises:
        RecordError: the ledger cannot be written, so nothing is injected.
        FaultRefused: the bounds no longer hold, so nothing is injected.
        TargetError: it was injected, but did not take hold.
    """
    subject = fault.subject(captured)
    if (planned := being_planned()) is not None:
        planned.append((fault, captured))
        return {"fault": fault.name, "subject": subject, "is_planned": True}
    check_bounds(fault, captured, folder)
    with Ledger(folder) as ledger, Timeline(folder, "fault") as timeline:
        entry_id = ledger.arm(fault.name, subject, captured)
        named = {"id": entry_id, "fault": fault.name, "subject": subject, "fidelity": fault.fidelity}
        named |= {"ends_by": fault.ends_by}
        timeline.note("fault.armed", **named, captured=captured)
        fault.recheck(captured)
        t_inject_ns = time.time_ns()
        with crash_around("inject"):
            fault.inject(captured)
        # Where it took hold later than it was asked for, as by a pod that has to start first, it says when.
        t_inject_ns = int(captured.get("t_hit_ns", t_inject_ns))
        ledger.note(entry_id, INJECTED, t_inject_ns=t_inject_ns)
        timeline.note("fault.injected", **named, t_inject_ns=t_inject_ns)
        with crash_around("verify"):
            seen = fault.verify(captured)
        if not seen.is_verified:
            timeline.note("fault.not_verified", **named, observed=seen.observed)
            raise TargetError(f"{subject}: {fault.name} did not take hold: {seen.observed}")
        ledger.note(entry_id, VERIFIED, observed=seen.observed)
        timeline.note("fault.verified", **named, observed=seen.observed)
    return named | {"captured": captured, "t_inject_ns": t_inject_ns, "verified": seen.observed}


def undo_pending(folder: Path, *, by: str) -> list[Undone]:
    """Undo every pending entry of a folder's ledger, the last one first, and note what came of each.

    One at a time, whoever asks: a second caller waits and then finds nothing left.
    """
    if not any(entry.is_pending for entry in read_ledger(folder)):
        return []
    with (
        Ledger(folder) as ledger,
        ledger.alone(timeout_s=ALONE_TIMEOUT_S),
        Timeline(folder, "fault") as timeline,
    ):
        pending = [entry for entry in read_ledger(folder) if entry.is_pending]
        return [_undo(entry, ledger, timeline, by=by) for entry in reversed(pending)]


def _undo(entry: Entry, ledger: Ledger, timeline: Timeline, *, by: str) -> Undone:
    named = {"id": entry.id, "fault": entry.fault, "subject": entry.subject, "by": by}
    with contextlib.suppress(RecordError):  # putting things back must not wait for room on the disk
        timeline.note("undo.started", **named)
    try:
        fault = load_fault(entry.fault)
        if entry.host not in ("", os.uname().nodename) and not fault.is_undone_anywhere:
            # Its pids are other processes here.
            raise TargetError(f"it was injected on {entry.host}; undo it there")
        with crash_around("undo"):
            undoing = fault.undo(entry.captured)
    except (SuiteError, OSError) as error:
        undoing = Undoing(is_restored=False, did=str(error), has_acted=False, is_seen=False)
    state = UNDONE if undoing.is_restored else UNDO_FAILED
    done = {"did": undoing.did, "has_acted": undoing.has_acted, "is_seen": undoing.is_seen}
    if not undoing.is_mending:
        done["is_mending"] = False
    if undoing.is_restored and undoing.ago_s:
        done["t_undone_ns"] = time.time_ns() - round(undoing.ago_s * 1e9)
    ledger.note(entry.id, state, **done, by=by)
    kind = "undo.verified" if undoing.is_restored else "undo.failed"
    with contextlib.suppress(RecordError):
        timeline.note(kind, **named, **done)
    return Undone(entry=entry, is_restored=undoing.is_restored, did=undoing.did)

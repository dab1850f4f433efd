"""What has to be so before a game day may touch a lab."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from experiments.injecting.ledger import ledger_folders, read_ledger
from experiments.injecting.window import Window
from experiments.lab.control import Lab, Process
from experiments.training.job_folder import Job, trains_in_full

LOCK_FILE = ".gameday"  # held by the game day that runs on a lab
ALLOWED_FILE = ".gameday-allowed"  # its owner says that this lab may be broken on purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One precondition."""

    name: str
    is_met: bool
    observed: str


def allow(folder: Path) -> None:
    """Mark a lab as one that game days may break."""
    (folder / ALLOWED_FILE).touch()


def look_at_permission(folder: Path) -> Condition:
    """See whether the lab, or the folder that stands for another target, is marked as allowed."""
    is_met = (folder / ALLOWED_FILE).exists()
    wanted = (
        f"no {ALLOWED_FILE} in {folder}: whoever owns this target makes that file, as `lab up` does for a lab"
    )
    return Condition(name="target allowed", is_met=is_met, observed="marked" if is_met else wanted)


def look_at_window(window: Window | None, now: datetime.datetime) -> Condition:
    """See whether now is within the hours in which the experiment may run."""
    if window is None:
        return Condition(name="window", is_met=True, observed="at any time")
    is_met = window.holds(now)
    return Condition(name="window", is_met=is_met, observed=f"{'within' if is_met else 'outside'} {window}")


def look_at_leftovers(supervisor: Process, out: Path) -> Condition:
    """See whether an earlier fault is still pending on what this process supervises."""
    left = [
        f"{entry.subject} of {folder.name}"
        for folder in ledger_folders(out)
        for entry in read_ledger(folder)
        if entry.is_pending and entry.captured.get("supervisor", {}).get("pid") == supervisor.pid
    ]
    observed = f"{', '.join(left)}: `overproof gameday undo`" if left else "none"
    return Condition(name="nothing left of earlier ones", is_met=not left, observed=observed)


def look_at_declared_leftovers(target: str, out: Path) -> Condition:
    """See whether a fault that an earlier experiment has declared is still pending on this target."""
    left = [
        f"{entry.subject} of {folder.name}"
        for folder in ledger_folders(out)
        for entry in read_ledger(folder)
        if entry.is_pending and entry.captured.get("target") == target
    ]
    observed = f"{', '.join(left)}: `overproof gameday undo`" if left else "none"
    return Condition(name="nothing left of earlier ones", is_met=not left, observed=observed)


def look_at_others(folder: Path) -> Condition:
    """See whether another game day runs on the lab."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return Condition(name="no other game day", is_met=False, observed="one runs on this lab")
        finally:
            os.close(descriptor)
    return Condition(name="no other game day", is_met=True, observed="none runs")


def look_at_work(lab: Lab, wanted_ms: float) -> list[Condition]:
    """See whether replicas use their processor enough to feel that it is short, where that is wanted."""
    if not wanted_ms:
        return []
    is_met = lab.step_work_ms >= wanted_ms
    observed = f"each step takes {lab.step_work_ms:g} ms of the processor, of {wanted_ms:g} wanted"
    if not is_met:
        observed += f"; `overproof lab down`, then `overproof lab up --step-work-ms {wanted_ms:g}`"
    return [Condition(name="replicas work", is_met=is_met, observed=observed)]


def look_at_health(lab: Lab) -> Condition:
    """See whether the lab is whole before anything is broken."""
    odd = [f"{r.name} does not serve" for r in lab.replicas if not r.is_serving]
    odd += [f"{r.name} is spoiled" for r in lab.replicas if r.spoiled_by or r.runs_with]
    odd += [] if lab.trouble is None else [f"{lab.trouble['kind']} at the gateway"]
    observed = ", ".join(odd) or f"{len(lab.serving)} of {len(lab.replicas)} replicas serve"
    return Condition(name="steady now", is_met=not odd, observed=observed)


def look_at_ranks(job: Job) -> Condition:
    """See whether a training job is whole before anything is broken."""
    observed = f"{len(job.ranks)} of {job.world} ranks train"
    return Condition(name="steady now", is_met=trains_in_full(job.folder), observed=observed)

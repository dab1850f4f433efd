"""What game days have left behind: pending faults, processes, labs, and trouble in labs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.injecting import permission
from experiments.injecting.crash_points import RUN_VARIABLE
from experiments.injecting.ledger import Entry, ledger_folders, read_ledger
from experiments.lab.control import (
    FOLDER_NAME,
    STATE_FILE,
    is_lab_alive,
    process_from_json,
    read_lab,
    read_state,
)
from experiments.processes.stop import controller_of
from probes.child import process_start_time, process_state
from probes.errors import SuiteError
from reports.run import load_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One thing that a game day has left."""

    kind: str  # fault, process, lab or trouble
    subject: str
    observed: str
    next_step: str


def find_leftovers(out: Path) -> list[Leftover]:
    """Look everywhere; what belongs to a game day that runs is not left over."""
    return [*_faults(out), *_processes(), *_labs(out), *_trouble(out / FOLDER_NAME)]


def _faults(out: Path) -> Iterator[Leftover]:
    for folder in ledger_folders(out):
        if is_run_alive(folder):
            continue
        for entry in read_ledger(folder):
            if entry.is_pending:
                on_host = f"; {_seen_on_host(entry)}" if "host_fault" in entry.captured else ""
                yield Leftover(
                    kind="fault",
                    subject=entry.subject,
                    observed=f"{entry.fault}: {entry.state} in {folder}{on_host}",
                    next_step=f"overproof gameday undo {folder}",
                )


def _seen_on_host(entry: Entry) -> str:
    from experiments.hosts.faults import look_at  # with paramiko, which most need not wait for

    return look_at(entry.captured)


def is_run_alive(folder: Path) -> bool:
    """Say whether the process that made a run, or injects into a folder of its own, still lives."""
    with contextlib.suppress(SuiteError):
        return controller_of(load_run(folder)).is_alive
    return any(is_injector(pid, folder) for pid in _pids())


def is_injector(pid: int, folder: Path) -> bool:
    """Say whether a process is the undo timer that still looks after the ledger of plain ``chaos run``."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b"experiments.injecting.undo_timer" in words and str(folder.resolve()).encode() in words
    return False


def _pids() -> list[int]:
    """Return every process but those in containers: the run of such a one is a folder that we do not see."""
    ours = _pid_space(Path("/proc/self"))
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _pid_space(path) in (ours, None)]


def _pid_space(process: Path) -> Path | None:
    """Return what the ids of a process are counted in; None: it has ended, or is not ours to look at."""
    try:
        return (process / "ns/pid").readlink()
    except OSError:
        return None


def _processes() -> Iterator[Leftover]:
    """Find processes of game days whose controller is gone, by the mark in their environment."""
    mark = f"{RUN_VARIABLE}=".encode()
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
        run = next((entry.removeprefix(mark).decode() for entry in environment if entry.startswith(mark)), "")
        if not run or pid == os.getpid() or process_start_time(pid) is None or is_run_alive(Path(run)):
            continue
        yield Leftover(
            kind="process",
            subject=f"pid {pid}",
            observed=f"of {run}, whose controller is gone: {command.strip()[:200]}",
            next_step=f"kill {pid}; if it stays, kill -9 {pid}",
        )


def _labs(out: Path) -> Iterator[Leftover]:
    """Find labs that game days started for themselves, and the replicas of labs that crashed."""
    for state_file in (*out.glob(f"*/{FOLDER_NAME}/{STATE_FILE}"), out / FOLDER_NAME / STATE_FILE):
        folder, state = state_file.parent, read_state(state_file.parent)
        if state is None or folder.parent.is_symlink():
            continue
        rows = [row for row in (state["supervisor"], *state["replicas"]) if row["pid"] is not None]
        alive = [process for row in rows if (process := process_from_json(row)).is_alive]
        is_kept = is_lab_alive(folder) and (folder.parent == out or is_run_alive(folder.parent))
        if alive and not is_kept:
            yield Leftover(
                kind="lab",
                subject=str(folder),
                observed=f"processes {', '.join(str(process.pid) for process in alive)} still run",
                next_step=f"overproof lab down --out {folder.parent}",
            )


def _trouble(folder: Path) -> Iterator[Leftover]:
    """Find what is wrong in the lab that stays, unless a game day is at work there."""
    if not is_lab_alive(folder) or not permission.look_at_others(folder).is_met:
        return
    try:
        lab = read_lab(folder)
    except SuiteError as error:
        yield Leftover(kind="lab", subject=str(folder), observed=str(error), next_step="overproof lab down")
        return
    found = [] if lab.trouble is None else [("gateway", f"trouble: {json.dumps(lab.trouble)}")]
    for replica in lab.replicas:
        if replica.spoiled_by or replica.runs_with:
            found.append((replica.name, f"spoiled by {' '.join(replica.spoiled_by or replica.runs_with)}"))
        if replica.is_draining:
            found.append((replica.name, "draining: gets nothing new"))
        if replica.pid is not None and process_state(replica.pid) == "T":
            found.append((replica.name, f"pid {replica.pid} is stopped"))
        elif not replica.is_serving:
            found.append((replica.name, "does not serve"))
    for subject, observed in found:
        yield Leftover(
            kind="trouble",
            subject=f"{subject} of {folder}",
            observed=observed,
            next_step="overproof gameday undo; if it stays: overproof lab down, overproof lab up",
        )

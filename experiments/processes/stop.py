"""The stop button: whoever can reach the run folder of a game day can end it.

A file asks its controller to leave, which works for another person and on a shared file system too. A
controller that is dead, or does not hear, is no obstacle: then whoever asks undoes.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.faults.fault import load_fault
from experiments.injecting.injection import Undone, undo_pending
from experiments.injecting.ledger import read_ledger
from experiments.lab.control import Process
from probes.child import wait_until
from probes.errors import ConfigError, SuiteError, TargetError
from reports.record import write_atomically
from reports.run import CRASHED, FINISHED, INTERRUPTED, STOPPED, Run, load_run

STOP_FILE = "stop.json"
STOP_EVENT = "stop.requested"
LEAVE_TIMEOUT_S = 120.0  # rollbacks, undo and judging; then the controller is killed
_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What stopping one game day came to."""

    run: Path
    how: str
    undone: list[Undone]

    @property
    def is_restored(self) -> bool:
        """Whether nothing of it is left."""
        return all(undone.is_restored for undone in self.undone)


def watch_for_stop(folder: Path, note: Callable[[str], None]) -> Callable[[], None]:
    """Send ourselves SIGTERM once somebody has asked for a stop; return what ends the watching."""
    leaving = threading.Event()

    def watch() -> None:
        while not leaving.wait(_POLL_S):
            if (folder / STOP_FILE).exists():
                with contextlib.suppress(SuiteError):  # a full disk must not keep the button from working
                    note(_read_who(folder))
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, name="stop-watch", daemon=True)
    thread.start()
    return leaving.set


def _read_who(folder: Path) -> str:
    try:
        return str(json.loads((folder / STOP_FILE).read_text(encoding="utf-8"))["by"])
    except (OSError, ValueError, KeyError, TypeError):
        return "somebody"


def running_gamedays(out: Path) -> list[Path]:
    """Return the game days under ``out`` whose controller runs, or that have left something."""
    return [run.path for run in _gamedays(out) if controller_of(run).is_alive or _is_pending(run.path)]


def _gamedays(out: Path) -> list[Run]:
    found = []
    for path in sorted(out.glob("*/run.json")):
        if path.parent.is_symlink():
            continue  # ``latest`` is one of them again
        with contextlib.suppress(SuiteError):
            run = load_run(path.parent)
            found += [run] if run.header.kind == "gameday" else []
    return found


def controller_of(run: Run) -> Process:
    """Return the process that runs, or ran, a game day; on another host it counts as gone."""
    is_here = run.header.host == os.uname().nodename
    return Process(pid=run.header.pid, start_time=run.header.pid_start_time if is_here else None)


def _is_pending(folder: Path) -> bool:
    return any(entry.is_pending for entry in read_ledger(folder))


def stop_gameday(folder: Path, *, timeout_s: float = LEAVE_TIMEOUT_S) -> Stopped:
    """Ask a game day to stop, wait until it has, and undo whatever is left.

    Raises:
        ConfigError: this is no game day.
        TargetError: it runs on another host and does not answer.
    """
    run = load_run(folder)
    if run.header.kind != "gameday":
        raise ConfigError(
            f"{folder}: is a {run.header.kind} run, no game day; Ctrl-C in its terminal stops it"
        )
    controller = controller_of(run)
    if run.header.host != os.uname().nodename:
        return _stop_elsewhere(run, timeout_s=timeout_s)
    if not controller.is_alive:
        how = "its controller was gone"
    else:
        how = _stop_here(folder, controller, timeout_s=timeout_s)
    return Stopped(run=folder, how=how, undone=undo_pending(folder, by="gameday stop"))


def _stop_here(folder: Path, controller: Process, *, timeout_s: float) -> str:
    try:
        _ask(folder)
    except OSError:  # the folder can be read and not written: the process itself may still hear
        controller.send(signal.SIGTERM)
    if wait_until(lambda: not controller.is_alive, timeout_s=timeout_s):
        return "it stopped"
    controller.send(signal.SIGKILL)
    wait_until(lambda: not controller.is_alive, timeout_s=_POLL_S * 20)
    return f"it did not stop within {timeout_s:g} s and was killed"


def _stop_elsewhere(run: Run, *, timeout_s: float) -> Stopped:
    """Ask by the file alone: pids of another host say nothing here. What is on hosts is undone from here."""
    where, how = f"{run.path}: of {run.header.host}", "it stopped"
    if not _has_ended(run.path):
        try:
            _ask(run.path)
        except OSError as error:
            raise TargetError(f"{where}: {STOP_FILE} cannot be written: {error.strerror}") from error
        if not wait_until(lambda: _has_ended(run.path), timeout_s=timeout_s, interval_s=1.0):
            how = "its controller does not answer"
            if not _is_undone_anywhere(run.path):
                raise TargetError(f"{where}: does not answer; run `overproof gameday stop` there")
    if _is_pending(run.path) and not _is_undone_anywhere(run.path):
        raise TargetError(f"{where}: has ended and left something; run `overproof gameday undo` there")
    return Stopped(run=run.path, how=how, undone=undo_pending(run.path, by="gameday stop"))


def _is_undone_anywhere(folder: Path) -> bool:
    """Say whether something is pending, and all of it is reached from here as well."""
    pending = [entry for entry in read_ledger(folder) if entry.is_pending]
    return bool(pending) and all(load_fault(entry.fault).is_undone_anywhere for entry in pending)


def _has_ended(folder: Path) -> bool:
    return bool(load_run(folder).events_of(FINISHED, INTERRUPTED, STOPPED, CRASHED))


def _ask(folder: Path) -> None:
    by = f"{getpass.getuser()}@{os.uname().nodename}"
    # At once as a whole: the controller that finds the file reads who it was, and looks once.
    write_atomically(folder / STOP_FILE, json.dumps({"by": by, "t_ns": time.time_ns()}) + "\n")

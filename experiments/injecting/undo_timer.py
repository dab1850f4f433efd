"""``python -m experiments.injecting.undo_timer``: undoes what is left behind under plain ``chaos run``.

A process in a session of its own, there before anything is broken. It undoes once the process that injected
is gone, even by kill -9, or once a fault has lasted its time; then it leaves.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import Entry, read_ledger
from experiments.lab.control import Process, this_process
from probes.child import end_child, python_module
from probes.errors import ConfigError, SuiteError

UNDO_AFTER_VARIABLE = "OVERPROOF_UNDO_AFTER_S"
UNDO_AFTER_S = 600.0  # a fault lasts no longer, whoever forgets it
BY = "undo timer"
_READY_TIMEOUT_S = 30.0
_POLL_S = 0.2
_TRIES_MAX = 5
_BETWEEN_TRIES_S = 2.0


def start_timer(folder: Path) -> None:
    """Start the timer for this process's ledger in ``folder``; return once it watches.

    Raises:
        ConfigError: it does not start, so nothing may be injected.
    """
    me, limit_s = this_process(), _limit_s()
    arguments = ["--folder", str(folder), "--pid", str(me.pid), "--start-time", str(me.start_time)]
    with (folder / "undo-timer.log").open("w") as log:
        child = subprocess.Popen(
            python_module("experiments.injecting.undo_timer", *arguments, "--limit-s", str(limit_s)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    if not _says_ready(folder, child):
        end_child(child)
        raise ConfigError(
            f"{folder}: no undo timer could be started, so nothing is injected; see undo-timer.log"
        )
    child.returncode = 0  # it stays, on purpose: Popen must not wait for it nor warn


def _says_ready(folder: Path, child: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        if "watching" in (folder / "undo-timer.log").read_text(errors="replace"):
            return True
        time.sleep(0.05)
    return False


def _limit_s() -> float:
    text = os.environ.get(UNDO_AFTER_VARIABLE, str(UNDO_AFTER_S))
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = 0.0
    if not 0 < limit_s <= 86400:
        raise ConfigError(
            f"{UNDO_AFTER_VARIABLE}: wanted seconds, more than 0 and at most 86400, got {text!r}"
        )
    return limit_s


def watch(folder: Path, injector: Process, *, limit_s: float) -> None:
    """Undo when the injector is gone or a fault has lasted its time; return when nothing is left."""
    tries = 0
    while tries < _TRIES_MAX:
        is_gone = not injector.is_alive
        pending = [entry for entry in read_ledger(folder) if entry.is_pending]
        if is_gone and not pending:
            return
        if is_gone or any(_is_over(entry, limit_s) for entry in pending):
            tries += not _try_to_undo(folder)
            time.sleep(_BETWEEN_TRIES_S if tries else 0)
        time.sleep(_POLL_S)


def _is_over(entry: Entry, limit_s: float) -> bool:
    return time.time_ns() - entry.t_armed_ns > limit_s * 1e9


def _try_to_undo(folder: Path) -> bool:
    try:
        return all(undone.is_restored for undone in undo_pending(folder, by=BY))
    except SuiteError as error:
        sys.stderr.write(f"{error}\n")
        return False


def main() -> int:
    """Watch one ledger."""
    parser = argparse.ArgumentParser(prog="experiments.injecting.undo_timer")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--start-time", type=int, required=True)
    parser.add_argument("--limit-s", type=float, required=True)
    given = parser.parse_args()
    print("watching", flush=True)  # noqa: T201
    watch(given.folder, Process(pid=given.pid, start_time=given.start_time), limit_s=given.limit_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())

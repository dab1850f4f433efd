"""Supervisors that outlive the command that starts them: one for each folder, left once it works."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.injecting.permission import allow
from probes.child import end_child, wait_until
from probes.errors import ConfigError, TargetError


def lock_folder(folder: Path, *, subject: str, down: str) -> int:
    """Take a folder for the one supervisor of it; the lock goes with the process.

    Raises:
        ConfigError: another one has it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{subject}: the folder cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(f"{subject}: one runs here already; `{down}` stops it") from error
    return descriptor


def start_supervisor(
    command: Sequence[str],
    *,
    subject: str,
    log_path: Path,
    is_up: Callable[[int], bool],
    timeout_s: float,
) -> None:
    """Start a supervisor that outlives us, and wait until it is up, as told by its pid.

    Raises:
        ConfigError: what it needs cannot be had, as its exit status 2 says.
        TargetError: it did not come up in time; it is stopped again.
    """
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("w")
    except OSError as error:
        raise ConfigError(f"{subject}: the folder cannot be written: {error.strerror}") from error
    with log:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        # As seen once: a second look may meet a check of its health that has just come late.
        stays = wait_until(lambda: child.poll() is not None or is_up(child.pid), timeout_s=timeout_s)
        stays = stays and child.poll() is None
    except BaseException:  # a Ctrl-C: nobody would know of this one
        end_child(child)
        raise
    if not stays:
        end_child(child)
        kind = ConfigError if child.returncode == 2 else TargetError
        raise kind(last_line(log_path) or f"{subject}: did not come up in {timeout_s:g} s")
    allow(log_path.parent)
    child.returncode = 0  # it stays, on purpose: Popen must not wait for it nor warn


def last_line(log_path: Path) -> str:
    """Return the last line of a log; empty where there is none."""
    lines = log_path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""

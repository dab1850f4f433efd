"""Find and wait for the processes that one test started, however far down."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.child import wait_until

PATIENT = ("nice", "-n", "10")  # before a command
_MARK = "OVERPROOF_TEST_JOB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One overproof command in a process of its own; its descendants carry its mark."""

    process: subprocess.Popen[str]
    mark: str
    log: Path

    def descendants(self) -> list[str]:
        """Return the command lines of every process with the mark, the command itself included."""
        return [command for _, command in processes_with(f"{_MARK}={self.mark}")]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, as ``kill PID`` does."""
        self.process.send_signal(number)

    def wait(self, *, timeout_s: float) -> int:
        """Return the exit code; the log is the message when it does not come."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {timeout_s} s; log:\n{self.text()}") from None

    def text(self) -> str:
        """Return what the command has printed so far."""
        return self.log.read_text(errors="replace")


def start_job(
    arguments: Sequence[str], folder: Path, *, env: Mapping[str, str] | None = None, is_patient: bool = False
) -> Job:
    """Start ``overproof …`` with its output in ``folder/log``, and with these variables besides ours.

    ``is_patient`` is for what rests on no timing: it leaves the processor to the tests that run beside it.
    """
    mark, log = secrets.token_hex(8), folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*(PATIENT if is_patient else ()), sys.executable, "-P", "-m", "overproof", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {}), _MARK: mark},
            text=True,
        )
    return Job(process=process, mark=mark, log=log)


def processes_with(entry: str) -> list[tuple[int, str]]:
    """Return pid and command line of each process whose environment holds ``NAME=value``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(
                    (int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
                )
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
    return [(pid, command) for pid, command in found if command]


def wait_for(condition: Callable[[], bool], job: Job, *, timeout_s: float, what: str) -> None:
    """Wait for a condition while the job runs; say what was awaited and what the job printed."""
    started = time.monotonic()
    if wait_until(lambda: condition() or job.process.poll() is not None, timeout_s=timeout_s) and condition():
        return
    waited = time.monotonic() - started
    raise AssertionError(f"{what}: not within {waited:.0f} s; exit {job.process.poll()}; log:\n{job.text()}")

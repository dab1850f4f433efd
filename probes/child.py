"""Child processes that cannot outlive us.

A child leads a session of its own, so that a Ctrl-C reaches only the parent, which then stops its children
in order. Its standard input is a lifeline: when the parent is gone, even by kill -9, it reads end of file
and leaves. The parent ends a child by closing the lifeline, then SIGTERM, then SIGKILL to its whole group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_LINE_BYTES_MAX = 1 << 16  # of a lifeline


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules, whatever folder the user stands in.

    ``-P`` keeps that folder off the import path: it may hold a ``probes.py`` of someone else.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def start_child(
    command: Sequence[str],
    *,
    stdout: int | IO[Any] | None = subprocess.PIPE,
    stderr: int | IO[Any] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a command in a session of its own with a lifeline on standard input (text mode)."""
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=None if env is None else dict(env),
        cwd=cwd,
        text=True,
        bufsize=1,
        start_new_session=True,
    )


def end_child(child: subprocess.Popen[Any], *, grace_s: float = 5.0) -> bool:
    """End a child and everything in its group; return whether its group is gone.

    False names the one thing that SIGKILL cannot end: a process stuck in the kernel.
    """
    if child.stdin is not None:
        with contextlib.suppress(OSError):  # the pipe may be broken already: that is what we want
            child.stdin.close()
    if child.poll() is None:
        signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=grace_s)
    signal_group(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=grace_s)
    return wait_until(lambda: not _group_members(child.pid), timeout_s=grace_s, interval_s=0.01)


def _group_members(group: int) -> list[int]:
    """Return the processes of a group that still run; the dead that nobody has collected do not count."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat_fields(int(folder.name))
        if _runs(fields) and int(fields[2]) == group:
            found.append(int(folder.name))
    return found


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child's whole group, if any of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def watch_lifeline(
    on_loss: Callable[[], None],
    *,
    silence_s: float | None = None,
    on_line: Callable[[bytes], None] | None = None,
) -> threading.Thread:
    """Call ``on_loss`` from a daemon thread once standard input ends: the parent has gone.

    ``silence_s`` is for a line that a network carries, where nothing may ever say that it ended: whoever is
    there says something more often than that. Whatever the parent writes goes to ``on_line``, if to anybody,
    so read what you expect from it before, and not beyond it: ``read_first_line``.
    """
    thread = threading.Thread(target=_drain, args=(on_loss, silence_s, on_line), name="lifeline", daemon=True)
    thread.start()
    return thread


def stop_with_parent() -> None:
    """Stop as by SIGTERM once standard input ends: whoever started this command has gone."""
    watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM))


def _drain(
    on_loss: Callable[[], None], silence_s: float | None, on_line: Callable[[bytes], None] | None
) -> None:
    rest = b""
    while True:
        try:
            if not select.select([0], [], [], silence_s)[0]:
                break
            data = os.read(0, 4096)
        except OSError:
            break
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-_LINE_BYTES_MAX:]
        if on_line is not None:
            for line in lines:
                on_line(line)
    on_loss()


def read_first_line(*, within_s: float) -> str:
    """Return the first line of standard input and not a byte more; nothing where it does not come in time."""
    deadline, line = time.monotonic() + within_s, b""
    while not line.endswith(b"\n"):
        if not select.select([0], [], [], max(deadline - time.monotonic(), 0))[0]:
            return ""
        byte = os.read(0, 1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def process_start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (/proc/PID/stat, field 22).

    None: there is no such process. With the pid it names a process for good: pids are used again.
    """
    fields = _stat_fields(pid)
    return int(fields[19]) if _runs(fields) else None


def process_state(pid: int) -> str:
    """Return a process's state letter of proc(5), as T for stopped; empty: there is none."""
    return next(iter(_stat_fields(pid)), "")


def _stat_fields(pid: int) -> list[str]:
    """Return what follows the name in /proc/PID/stat, state first; nothing where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()  # a name can hold any byte
    except OSError:
        return []
    return stat.rpartition(b")")[2].decode().split()


def _runs(fields: list[str]) -> bool:
    """Say whether a process has a thread left; a zombie by its first one may still answer on its sockets."""
    return bool(fields) and (fields[0] not in ("Z", "X") or int(fields[17]) > 1)


def is_alive(pid: int, start_time: int | None) -> bool:
    """Say whether the very process that had this pid and start time still runs (a zombie does not)."""
    return start_time is not None and process_start_time(pid) == start_time


def wait_until(condition: Callable[[], bool], *, timeout_s: float, interval_s: float = 0.05) -> bool:
    """Poll until the condition holds or the time is up; return whether it held."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval_s)
    return True

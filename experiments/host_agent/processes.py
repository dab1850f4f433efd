"""The processes of a host: each named for good by pid and start time, some of which nobody may hit."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from probes.child import is_alive, process_start_time

SSHD = frozenset({"sshd", "sshd-session", "sshd-auth"})
_KERNEL_PARENT = 2  # kthreadd


@dataclass(frozen=True)
class Found:
    """A process as /proc shows it."""

    pid: int
    start_time: int
    name: str  # what the kernel calls it
    command: str  # its words; empty: a thread of the kernel
    parent: int

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return is_alive(self.pid, self.start_time)


def read_process(pid: int) -> Found | None:
    """Return one process; None: there is none, or it is dead and nobody has collected it."""
    folder = Path(f"/proc/{pid}")
    start_time = process_start_time(pid)
    try:
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        stat = (folder / "stat").read_bytes()
    except OSError:
        return None
    if start_time is None:
        return None
    name = stat[stat.index(b"(") + 1 : stat.rindex(b")")].decode(errors="replace")
    parent = int(stat.rpartition(b")")[2].split()[1])
    return Found(pid=pid, start_time=start_time, name=name, command=command, parent=parent)


def every_process() -> list[Found]:
    """Return what runs, by pid."""
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [found for pid in pids if (found := read_process(pid)) is not None]


def ancestors(pid: int) -> list[int]:
    """Return a process and all that it comes from."""
    line: list[int] = []
    while pid > 0 and pid not in line and (found := read_process(pid)) is not None:
        line.append(pid)
        pid = found.parent
    return line


def why_spared(found: Found, *, ours: list[int]) -> str:
    """Say why nobody may hit this process; empty: it may be hit."""
    if found.pid == 1:
        return "it is process 1"
    if not found.command or found.parent == _KERNEL_PARENT:
        return "it is the kernel's"
    if found.name in SSHD:
        return "it is sshd, the way in"
    if found.pid in ours or "experiments.host_agent" in found.command:
        return "it is our own"
    return ""


def send(pid: int, start_time: int, number: signal.Signals) -> bool:
    """Signal this very process, never another that has its pid by now; return whether it was there."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor holds the process; what it names can no longer change between look and signal.
        if not is_alive(pid, start_time):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True

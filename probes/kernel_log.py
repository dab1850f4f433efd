"""The kernel's log: what drivers and hardware report there, and nowhere else once a GPU is off the bus.

Reading and understanding are apart: ``KernelLog`` follows /dev/kmsg, ``Journal`` asks journald where only
that may be read, and ``find_trouble`` understands a message, whoever read it. Nothing is written to the log.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

RECORD_BYTES_MAX = 16384  # a record of /dev/kmsg has at most 8 KiB, and is refused to a smaller buffer
JOURNAL_DEADLINE_S = 5.0
_ADDRESS = r"(?P<pci>[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"


class LogUnreadable(Exception):
    """There is a log, and it is not for us."""


class LogAbsent(Exception):
    """There is no log to read, as in most containers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One message that tells of trouble."""

    what: str  # "xid", "sxid", "aer", "mce", "edac" or "driver"
    severity: str  # "fatal", "uncorrected", "corrected", or empty where the message does not say
    pci: str  # where; empty: it does not say
    code: int | None  # of an XID or SXid
    text: str


_PATTERNS = (
    ("xid", re.compile(rf"NVRM: Xid \((?:PCI:)?{_ADDRESS}[^)]*\): (?P<code>\d+)")),
    ("sxid", re.compile(rf"SXid \((?:PCI:)?{_ADDRESS}[^)]*\): (?P<code>\d+)")),
    ("aer", re.compile(rf"AER: (?:Multiple )?(?:Un)?[Cc]orrect.*?(?:received|from):? {_ADDRESS}")),
    ("aer", re.compile(rf"{_ADDRESS}: PCIe Bus Error: severity=")),
    ("mce", re.compile(r"\[Hardware Error\]: .*(?:Machine [Cc]heck|event severity|CPU \d+: Machine)")),
    ("edac", re.compile(r"EDAC \w+: \d+ (?:CE|UE) ")),
    ("driver", re.compile(rf"NVRM: GPU {_ADDRESS}: RmInitAdapter failed")),
)
_SEVERITIES = (
    ("uncorrected", re.compile(r"Non-[Ff]atal|severity: recoverable|EDAC \w+: \d+ UE |Uncorrect")),
    ("corrected", re.compile(r"[Cc]orrected|EDAC \w+: \d+ CE |events logged")),
)
_FATAL = re.compile(r"(?<!Non-)(?<!non-)[Ff]atal|Machine Check Exception")


def find_trouble(message: str) -> Trouble | None:
    """Return what a message tells; None: nothing that concerns us."""
    for what, pattern in _PATTERNS:
        found = pattern.search(message)
        if found:
            groups = found.groupdict()
            code = groups.get("code")
            return Trouble(
                what=what,
                severity=_severity(message),
                pci=groups.get("pci") or "",
                code=int(code) if code else None,
                text=message[:300],
            )
    return None


def _severity(message: str) -> str:
    if _FATAL.search(message):
        return "fatal"
    return next((name for name, pattern in _SEVERITIES if pattern.search(message)), "")


def pci_key(address: str) -> tuple[int, int, int] | None:
    """Return domain, bus and device of an address, as the kernel or NVML writes it; None: it is none."""
    found = re.fullmatch(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})(?:\.[0-7])?", address)
    return None if found is None else (int(found[1], 16), int(found[2], 16), int(found[3], 16))


def messages_of(chunk: str) -> list[str]:
    """Return the messages in what /dev/kmsg gave: ``priority,sequence,time,flags;message``, then details."""
    lines = (line for line in chunk.splitlines() if line and not line.startswith(" "))
    return [line.partition(";")[2] if ";" in line else line for line in lines]


class KernelLog:
    """Follows the kernel's own record from now on."""

    reader = "/dev/kmsg"

    def __init__(self, root: Path = Path("/")) -> None:
        try:
            self._descriptor = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except PermissionError as error:
            raise LogUnreadable(f"/dev/kmsg: {error.strerror}") from error
        except OSError as error:
            raise LogAbsent(f"/dev/kmsg: {error.strerror}") from error
        self.lost = 0  # times that the kernel had overwritten what we had not read yet

    def read_new(self) -> list[str]:
        """Return the messages that have come since."""
        messages: list[str] = []
        for _ in range(1000):  # a flood is read on next time
            try:
                chunk = os.read(self._descriptor, RECORD_BYTES_MAX)
            except BlockingIOError:
                break
            except BrokenPipeError:
                self.lost += 1
                continue
            if not chunk:
                break
            messages += messages_of(chunk.decode("utf-8", errors="replace"))
        return messages


class Journal:
    """Asks journald for the kernel's messages: its groups may read them where the log itself is root's."""

    reader = "journalctl -k"

    def __init__(self, *, since_s: float | None = None) -> None:
        self._since_s = since_s if since_s is not None else time.time()
        self._told = 0
        self.lost = 0
        # Without a journal journalctl shows nothing and ends well. A kernel has always said something.
        if not self._ask("-n", "1"):
            raise LogAbsent("journalctl: no message of the kernel in the journal")
        self.read_new()

    def read_new(self) -> list[str]:
        """Return the messages that have come since.

        Raises:
            LogUnreadable: journald is there, and shows us nothing of the kernel.
            LogAbsent: it is not there, or does not answer.
        """
        lines = self._ask(f"--since=@{self._since_s:.0f}")
        new, self._told = lines[self._told :], len(lines)
        return new

    def _ask(self, *which: str) -> list[str]:
        command = ["journalctl", "-k", "--no-pager", "-o", "cat", *which]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=JOURNAL_DEADLINE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LogAbsent(f"journalctl: {error}") from error
        if "permission" in done.stderr.lower() or "not seeing messages" in done.stderr:
            raise LogUnreadable(f"journalctl: {done.stderr.strip().splitlines()[0]:.200}")
        if done.returncode != 0:
            raise LogAbsent(f"journalctl: exit code {done.returncode}: {done.stderr.strip():.200}")
        return [line for line in done.stdout.splitlines() if line and line != "-- No entries --"]


def open_log(root: Path = Path("/")) -> KernelLog | Journal:
    """Return the log, by whichever way is open to us.

    Raises:
        LogUnreadable: it is there and not for us.
        LogAbsent: it is not there.
    """
    try:
        return KernelLog(root)
    except (LogUnreadable, LogAbsent) as refused:
        if root != Path("/"):
            raise  # journald knows nothing of another tree
        try:
            return Journal()
        except LogUnreadable:
            raise
        except LogAbsent:
            raise refused from None

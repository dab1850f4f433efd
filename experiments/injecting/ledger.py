"""The write-ahead ledger of faults: on the disk before anything is broken.

``undo.ndjson`` only grows. Each line is one state of one entry, fsynced before its writer goes on. An entry
is ``armed``, with the state before and all that undoing needs, before the fault is injected; then come
``injected``, ``verified``, and at the end ``undone``, or ``undo_failed``, which can be tried again. Whatever
is not ``undone`` is pending, for ``overproof gameday undo`` too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.injecting.crash_points import crash_at, is_torn
from probes.child import wait_until
from probes.errors import RecordError, TargetError
from probes.event import to_json_line
from probes.json_types import JsonObject
from reports.record import UNDO_FILE, release_reserve
from reports.run import read_ndjson

ARMED, INJECTED, VERIFIED, UNDONE, UNDO_FAILED = "armed", "injected", "verified", "undone", "undo_failed"
SPACE_BYTES = 256 * 1024  # some hundred entries
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: space behind the end of the file, so that readers see no zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One fault, as far as it got."""

    id: str
    fault: str  # its name in experiments.faults.FAULTS, which knows how to undo it
    subject: str
    captured: JsonObject  # the state before, and all that undoing needs
    state: str  # the last one written
    detail: JsonObject  # what was written with the last state
    t_armed_ns: int = 0
    host: str = ""  # where it was injected; empty: an older ledger does not say

    @property
    def is_pending(self) -> bool:
        """Whether this fault may still be in the world."""
        return self.state != UNDONE

    @property
    def is_mended_by_us(self) -> bool:
        """Whether undoing had to put back what somebody else was to heal."""
        return bool(self.detail.get("has_acted")) and bool(self.detail.get("is_mending", True))


class Ledger:
    """Appends to the ledger of one folder. Several processes may do so at once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / UNDO_FILE
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refusal(error) from error
        try:
            _allocate(self._descriptor)
            self._end_torn_line()
        except OSError as error:
            os.close(self._descriptor)
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> RecordError:
        return RecordError(
            f"{self.path}: no space can be kept for undo entries: {error.strerror}; nothing is injected"
        )

    def arm(self, fault: str, subject: str, captured: JsonObject) -> str:
        """Write what is about to be injected and how to undo it; return the entry's id.

        Only after this has returned may the fault be injected.
        """
        entry_id = f"{fault}-{secrets.token_hex(4)}"
        self._write(
            {"id": entry_id, "state": ARMED, "fault": fault, "subject": subject, "captured": captured}
            | {"host": os.uname().nodename}
        )
        return entry_id

    def note(self, entry_id: str, state: str, **detail: object) -> None:
        """Write that an entry has reached a state."""
        self._write({"id": entry_id, "state": state, "detail": detail})

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def alone(self, *, timeout_s: float) -> Iterator[None]:
        """Keep every other process from undoing at the same time.

        Raises:
            TargetError: another one still does so after the time-out.
        """
        if not wait_until(self._try_lock, timeout_s=timeout_s):
            raise TargetError(
                f"{self.path}: another process has been undoing for {timeout_s:g} s; look for it"
            )
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write(self, row: JsonObject) -> None:
        line = to_json_line({"t_ns": time.time_ns(), "pid": os.getpid()} | row).encode()
        step = f"ledger.{row['state']}"
        crash_at(f"{step}.before")
        if is_torn(step):
            os.write(self._descriptor, line[: len(line) // 2])
            crash_at(f"{step}.during")
            self._end_torn_line()
        try:
            try:
                self._append(line)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                release_reserve(self.path.parent)  # a full disk must not keep us from putting things back
                self._end_torn_line()
                self._append(line)
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be written: {error.strerror}") from error
        crash_at(f"{step}.after")

    def _append(self, line: bytes) -> None:
        if os.write(self._descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)

    def _end_torn_line(self) -> None:
        """A line cut off by a crash must not swallow the next one."""
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")


def _allocate(descriptor: int) -> None:
    """Reserve space behind the end of the file; where the file system cannot, the run's reserve has to do."""
    libc = ctypes.CDLL(None, use_errno=True)
    offset, length = ctypes.c_int64(0), ctypes.c_int64(SPACE_BYTES)
    if libc.fallocate(descriptor, _KEEP_SIZE, offset, length) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(number, os.strerror(number))


def read_ledger(folder: Path) -> list[Entry]:
    """Return every entry in the order of arming, each with its last state.

    A torn line is passed over: its writer never got beyond it, so what it was to announce did not happen.
    """
    found: dict[str, JsonObject] = {}
    for row in read_ndjson(folder / UNDO_FILE):
        if row.get("state") == ARMED and {"id", "fault", "subject", "captured"} <= row.keys():
            found[str(row["id"])] = row
        elif row.get("id") in found:
            found[str(row["id"])] |= {"state": row["state"], "detail": row.get("detail") or {}}
    return [_entry(row) for row in found.values()]


def _entry(row: JsonObject) -> Entry:
    return Entry(
        id=str(row["id"]),
        fault=str(row["fault"]),
        subject=str(row["subject"]),
        captured=dict(row["captured"]),
        state=str(row["state"]),
        detail=dict(row.get("detail") or {}),
        t_armed_ns=int(row.get("t_ns", 0)),
        host=str(row.get("host", "")),
    )


def ledger_folders(out: Path) -> list[Path]:
    """Return the folders under ``out`` that have a ledger, oldest first."""
    found = {path.parent for path in out.glob(f"*/{UNDO_FILE}")}
    return sorted(folder for folder in found if not folder.is_symlink())  # ``latest`` is one of them again

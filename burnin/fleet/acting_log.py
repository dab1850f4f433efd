"""What was done on verdicts so far: a line before each action and one after, in a file that calls share.

Without it nobody could say how many nodes of a partition were drained in the last hour, or whose drain it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from probes.errors import ConfigError, RecordError
from probes.event import to_json_line
from reports.run import count_unreadable, read_ndjson

DRAIN, UNDRAIN = "drain", "undrain"
BEGUN, DONE, FAILED = "begun", "done", "failed"
LOCK_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: what was done to one host, and on which verdict."""

    t_ns: int
    action: str  # DRAIN or UNDRAIN
    state: str  # BEGUN, DONE or FAILED
    host: str
    partitions: tuple[str, ...]
    run: str
    profile: str
    reason: str
    detail: str = ""


class ActingLog:
    """The file, open and locked by this process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self.entries: list[Entry] = [_entry(row) for row in read_ndjson(path)]

    def add(self, entry: Entry) -> None:
        """Append a line and have it on the disk before anything else happens.

        Raises:
            RecordError: it cannot be written; then nothing may be done either.
        """
        line = to_json_line(asdict(entry)).encode()
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(28, os.strerror(28))
            os.fsync(self._descriptor)
        except OSError as error:
            raise RecordError(
                f"{self._path}: cannot be written: {error.strerror}; nothing is done"
            ) from error
        self.entries.append(entry)

    def last_of(self, host: str) -> Entry | None:
        """Return the last action on a host that was done, or that nobody knows the end of."""
        own = [entry for entry in self.entries if entry.host == host]
        while own and own[-1].state == FAILED:
            own = own[:-2]  # with the line that says that it was begun
        return own[-1] if own else None

    def drains_since(self, partition: str, since_ns: int) -> int:
        """Return how many nodes of a partition were drained; one whose end nobody knows counts as well."""
        drains = [e for e in self.entries if e.action == DRAIN and e.t_ns >= since_ns]
        hosts = {e.host for e in drains if partition in e.partitions}
        return sum(1 for host in hosts if (last := self.last_of(host)) and last.t_ns >= since_ns)


@contextlib.contextmanager
def acting_log(path: Path, *, within_s: float = LOCK_WITHIN_S) -> Iterator[ActingLog]:
    """Open the log; nobody else acts meanwhile.

    Raises:
        ConfigError: it cannot be opened, is damaged, or somebody else acts for too long.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"{path}: the log of what was done cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError(f"{path}: is no plain file; name one that the log can be kept in")
        _lock(descriptor, path, time.monotonic() + within_s)
        lost = count_unreadable(path)
        if lost:
            raise ConfigError(
                f"{path}: {lost} lines cannot be read: nobody knows how much was done; repair or move it"
            )
        yield ActingLog(path, descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{path}: another call acts right now; try again when it is done"
                ) from error
            time.sleep(0.05)
        else:
            return


def _entry(row: dict[str, object]) -> Entry:
    partitions = row.get("partitions")
    names: Sequence[object] = partitions if isinstance(partitions, list) else ()
    known = {
        name: str(row.get(name, ""))
        for name in ("action", "state", "host", "run", "profile", "reason", "detail")
    }
    return Entry(t_ns=int(str(row.get("t_ns", 0))), partitions=tuple(map(str, names)), **known)

"""One armed fault on the disk of its host: what undoing needs, and what came of it, each write fsynced.

A folder for each under ``armed/``: ``order.json`` is there before anything is broken; ``undone.json`` once it
is put back. Its room is kept free from the start, since the fault may be a full disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults import load_host_fault

ORDER, TIMER, SEEN, UNDONE, LOG, ARCHIVE = (
    "order.json", "timer.json", "seen.json", "undone.json", "timer.log", "agent.pyz",
)  # fmt: skip
_RESERVE = "reserve"
_RESERVE_BYTES = 1 << 16
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_KEPT_S = 7 * 86400  # of what has been undone: somebody may still ask


def boottime_s() -> float:
    """Return seconds since the boot, with those in suspend; nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what names this boot of this machine."""
    return _BOOT_ID.read_text().strip()


@dataclass(frozen=True)
class Armed:
    """One fault that is armed, or was."""

    folder: Path  # its own

    def read(self, name: str) -> dict[str, Any]:
        """Return one of its files; empty where it is not there."""
        try:
            found = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Write one of its files for good: whole or not at all, and on the disk when this returns."""
        with contextlib.suppress(FileNotFoundError):
            if name == UNDONE:
                (self.folder / _RESERVE).unlink()
        part = self.folder / f"{name}.part"
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.folder / name)
        sync_folder(self.folder)

    @property
    def order(self) -> dict[str, Any]:
        """What was armed; empty: nothing was."""
        return self.read(ORDER)

    @property
    def undone(self) -> dict[str, Any]:
        """How it was put back; empty: it was not."""
        return self.read(UNDONE)

    @property
    def is_pending(self) -> bool:
        """Whether it may still be in the world."""
        return bool(self.order) and not self.undone

    @property
    def left_s(self) -> float:
        """How long until its timer undoes it; none is left after a reboot."""
        order = self.order
        return order["undo_at_boottime_s"] - boottime_s() if order["boot_id"] == boot_id() else 0.0

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else from injecting or undoing this fault at the same time."""
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def undo(self, by: str) -> dict[str, Any]:
        """Put it back unless that has been done; return what came of it."""
        with self.alone():
            if done := self.undone:
                ago_s = boottime_s() - done["boottime_s"] if done["boot_id"] == boot_id() else 0.0
                return done | {"ago_s": max(0.0, ago_s)}
            order = self.order
            fault: Any = load_host_fault(order["fault"])
            is_restored, did, has_acted = fault.undo(order["state"])
            done = {"is_restored": is_restored, "did": did, "has_acted": has_acted, "by": by}
            if hasattr(fault, "is_seen_restored"):
                done["is_seen"] = fault.is_seen_restored(order["state"])
            done |= {"t_ns": time.time_ns(), "boottime_s": boottime_s(), "boot_id": boot_id()}
            if is_restored:
                self.write(UNDONE, done)
            return done | {"ago_s": 0.0}


def sync_folder(folder: Path) -> None:
    """Have what a folder lists on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def armed_of(base: Path, entry_id: str) -> Armed:
    """Return the place of one fault.

    Raises:
        Refused: this is no name of one.
    """
    if not _ID.fullmatch(entry_id):
        raise Refused(f"{entry_id!r} is no name of an armed fault")
    return Armed(base / "armed" / entry_id)


def every_armed(base: Path) -> list[Armed]:
    """Return every fault that was ever armed here and is still remembered."""
    return [Armed(folder) for folder in sorted((base / "armed").glob("*")) if folder.is_dir()]


def make_armed(base: Path, order: dict[str, Any], archive: bytes) -> Armed:
    """Put an order on the disk, with the programs that can undo it; only then may anything be broken.

    Raises:
        Refused: there is no room, or it cannot be written.
    """
    armed = armed_of(base, str(order["id"]))
    try:
        forget_old(base)
        armed.folder.mkdir(parents=True, mode=0o700)
        for name, content in ((ARCHIVE, archive), (_RESERVE, bytes(_RESERVE_BYTES))):
            with (armed.folder / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        armed.write(ORDER, order)
        for folder in (armed.folder.parent, base, base.parent):
            sync_folder(folder)
    except OSError as error:
        shutil.rmtree(armed.folder, ignore_errors=True)
        raise Refused(f"{armed.folder}: cannot be written: {error.strerror}; nothing is broken") from error
    return armed


def forget_old(base: Path) -> None:
    """Remove what was undone long ago."""
    for armed in every_armed(base):
        done = armed.undone
        if done and abs(time.time_ns() - done["t_ns"]) > _KEPT_S * 1e9:
            shutil.rmtree(armed.folder, ignore_errors=True)

"""Whether this host may be broken on purpose: its owner says so by a file; one game day at a time does."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from experiments.host_agent.armed import every_armed

ALLOWED_FILE = "gameday-allowed"  # empty: every fault; else one name or pattern a line, such as process.*
LOCK_FILE = "gameday.lock"
_OTHERS_MAY_WRITE = 0o022


def why_not_allowed(base: Path, faults: Sequence[str]) -> str:
    """Say why these faults are not allowed here; empty: they are."""
    path = base / ALLOWED_FILE
    try:
        status = path.stat()
        text = path.read_text(encoding="utf-8")
    except OSError:
        return f"no {path} on it: whoever owns this host makes that file (mkdir -p {base}; touch {path})"
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & _OTHERS_MAY_WRITE:
        return f"{path} on it can be written by others than its owner; chown root, chmod 644"
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    patterns = [line for line in lines if line]
    refused = [f for f in faults if patterns and not any(fnmatchcase(f, pattern) for pattern in patterns)]
    return f"{path} on it allows {', '.join(patterns)}, not {', '.join(refused)}" if refused else ""


class HostLock:
    """Keeps other game days off this host, as long as this process lives."""

    def __init__(self, base: Path) -> None:
        self._path = base / LOCK_FILE
        self._descriptor: int | None = None  # None: it is not ours

    def take(self, run: str, by: str) -> str:
        """Take it; return who has it, where somebody else does."""
        if self._descriptor is not None:
            return ""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return str(who_holds(self._path.parent).get("by", "somebody"))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"run": run, "by": by}).encode())
        self._descriptor = descriptor
        return ""

    def give_back(self) -> None:
        """Give it back, where it is ours."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def who_holds(base: Path) -> dict[str, Any]:
    """Return the game day that holds this host; empty: none does."""
    try:
        descriptor = os.open(base / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        try:
            return dict(json.loads(os.read(descriptor, 4096)))
        except ValueError:
            return {"run": "", "by": "a game day that begins just now"}
    finally:
        os.close(descriptor)
    return {}


def why_taken(base: Path, run: str) -> str:
    """Say which other game day is at work here, or has left something; empty: none."""
    holder = who_holds(base)
    if holder and holder["run"] != run:
        return f"another game day runs on it: {holder['by']}"
    left = [armed.order for armed in every_armed(base) if armed.is_pending]
    others = [f"{order['fault']} on {order['state']['subject']} of {order['by']}" for order in left
              if order["run"] != run]  # fmt: skip
    return f"another game day has left something on it: {'; '.join(others)}" if others else ""

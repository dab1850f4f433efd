"""Takes processor, memory and disk of a node, as a neighbour does that behaves badly, from a pod on it.

Lets go when the time is over or its pod is ended: whoever sent us may be gone. One line of JSON says what is
taken, once all of it is, and when the taking began.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

_MIB = 1 << 20
_POLL_S = 0.1
TIMED_OUT = 0


def _burn(ends_at: float) -> int:
    """Keep a core busy in a process of its own; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while time.monotonic() < ends_at:
        sum(range(100_000))
    os._exit(TIMED_OUT)


def _hold(mib: int) -> list[bytearray]:
    """Hold so much memory, each page of it written."""
    blocks = []
    for _ in range(mib):
        block = bytearray(_MIB)
        block[::4096] = b"\1" * len(block[::4096])
        blocks.append(block)
    return blocks


def _fill(folder: Path, mib: int) -> int:
    """Write so much to the disk; return how much is there."""
    path = folder / "filling"
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(_MIB))
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size // _MIB


def main(words: list[str]) -> int:
    """Take so many cores, mebibytes of memory and of disk in a folder, for so many seconds."""
    cores, memory_mib, disk_mib, folder, for_s = (*map(int, words[:3]), Path(words[3]), float(words[4]))
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    ends_at, began_ns = time.monotonic() + for_s, time.time_ns()
    burning: list[int] = []
    try:
        held = _hold(memory_mib)
        filled = _fill(folder, disk_mib) if disk_mib else 0
        burning += [_burn(ends_at) for _ in range(cores)]
        said = {"cores": len(burning), "memory_mib": len(held), "disk_mib": filled}
        sys.stdout.write(json.dumps({"did": "press", "t_ns": began_ns} | said) + "\n")
        sys.stdout.flush()
        while time.monotonic() < ends_at and not told:
            time.sleep(_POLL_S)
    finally:
        for pid in burning:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if disk_mib:
            (folder / "filling").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

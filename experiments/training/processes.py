"""What the kernel says of a node's ranks: which there are, and which have been told to end and do not."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.lab.control import Process
from probes.child import process_start_time

_NAME = "rank-"  # of the process, as in ps
_END = 1 << (signal.SIGTERM - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One rank's process."""

    rank: int
    process: Process


def find_ranks(agent: Process | None, known: Sequence[Worker]) -> list[Worker]:
    """Return the ranks that an agent has, by rank: its children that call themselves one."""
    if agent is None:
        return []
    before = {worker.process.pid: worker for worker in known if worker.process.is_alive}
    try:
        pids = [int(pid) for pid in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()]
    except OSError:
        return []
    found = (before.get(pid) or _read_worker(pid) for pid in pids)
    return sorted((worker for worker in found if worker is not None), key=lambda worker: worker.rank)


def _read_worker(pid: int) -> Worker | None:
    start_time = process_start_time(pid)
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None
    if not name.startswith(_NAME) or start_time is None:  # not a rank yet, or not any more
        return None
    return Worker(rank=int(name.removeprefix(_NAME)), process=Process(pid=pid, start_time=start_time))


def show_rank(rank: int) -> None:
    """Have this process be found as a rank, from now on, when it is sure to end with its agent.

    Before, nobody may stop it: a stopped one does not come to tie itself to its agent.
    """
    Path("/proc/self/comm").write_text(f"{_NAME}{rank}")


def has_pending_end(pid: int) -> bool:
    """Say whether a SIGTERM waits for this process, which a stopped one does not take."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    masks = (line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:")))
    return any(int(mask, 16) & _END for mask in masks)

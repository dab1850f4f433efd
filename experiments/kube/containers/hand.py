"""Signals the processes of one container, from a pod on its node that sees the node's processes.

No signal from inside will do: the first process of a container is the first of its namespace too, and the
kernel drops what is sent to such a one from within, SIGKILL and SIGSTOP above all. From outside they work.
What was stopped goes on when the time is over, when this pod is ended, or when we ask again; whoever sent us
may be gone. One line of JSON tells what was done each time, and when that was begun.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from string import hexdigits

LOOK, KILL, HANG, CONTINUE = "look", "kill", "hang", "continue"
_STOPPED, _ENDED = "T", "Z"
_POLL_S = 0.2
_TRIES = 25  # each a poll: processes that are started meanwhile are found as well


def pids_of(container: str, *, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes of a container, which the names of their control groups tell."""
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if container in (folder / "cgroup").read_text():
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return sorted(found)


def states_of(pids: list[int], *, proc: Path = Path("/proc")) -> dict[str, str]:
    """Return what the kernel says of each process, by pid; one that is gone is left out.

    Where the first thread has ended it is what another one is: the sockets are there until the last ends.
    """
    states = {}
    for pid in pids:
        try:
            state = _state(proc / str(pid))
            others = (
                (_state(task) for task in (proc / str(pid) / "task").iterdir()) if state == _ENDED else ()
            )
            states[str(pid)] = next((other for other in others if other != _ENDED), state)
        except OSError:
            continue
    return states


def _state(folder: Path) -> str:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0]


def _say(did: str, container: str, *, began_ns: int) -> None:
    said = {"did": did, "t_ns": began_ns, "container": container, "states": states_of(pids_of(container))}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def _send(container: str, number: int) -> None:
    for pid in pids_of(container):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _until(container: str, *, number: int, is_done: str) -> None:
    """Send a signal until every process is as wanted: ``gone``, ``stopped`` or ``going``."""
    for _ in range(_TRIES):
        _send(container, number)
        states = set(states_of(pids_of(container)).values()) - {_ENDED}
        if {"gone": not states, "stopped": states == {_STOPPED}, "going": _STOPPED not in states}[is_done]:
            return
        time.sleep(_POLL_S)


def _hang(container: str, for_s: float) -> None:
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    ends_at, began_ns = time.monotonic() + for_s, time.time_ns()
    try:
        _until(container, number=signal.SIGSTOP, is_done="stopped")
        _say(HANG, container, began_ns=began_ns)
        while time.monotonic() < ends_at and not told and pids_of(container):
            time.sleep(_POLL_S)
    finally:
        began_ns = time.time_ns()
        _until(container, number=signal.SIGCONT, is_done="going")
        _say(CONTINUE, container, began_ns=began_ns)


def main(words: list[str]) -> int:
    """Do as told: ``look``, ``kill``, ``hang`` or ``continue``, a container's id, and for how long."""
    verb, container, for_s = words[0], words[1], float(words[2])
    if len(container) < 32 or not set(container) <= set(hexdigits):  # others might be called so too
        sys.stderr.write(f"container {container!r}: wanted its whole id\n")
        return 2
    if verb == HANG:
        _hang(container, for_s)
        return 0
    began_ns = time.time_ns()
    if verb == KILL:
        _until(container, number=signal.SIGKILL, is_done="gone")
    elif verb == CONTINUE:
        _until(container, number=signal.SIGCONT, is_done="going")
    _say(verb, container, began_ns=began_ns)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Presses on one process, in a process of its own: ``python -m experiments.faults.press …``.

``squeeze`` stops and continues it many times a second, ``burn`` keeps one core busy. It leaves by its
lifeline, by SIGTERM or when its time is over, and lets go before it leaves.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time

from experiments.lab.control import Process
from probes.child import watch_lifeline

PERIOD_S = 0.05
MODULE = "experiments.faults.press"


def squeeze(victim: Process, *, stopped_share: float, until: float, leaving: threading.Event) -> None:
    """Let the victim run only for a share of the time."""
    try:
        while time.monotonic() < until and victim.send(signal.SIGSTOP):
            leaving.wait(PERIOD_S * stopped_share)
            victim.send(signal.SIGCONT)
            if leaving.wait(PERIOD_S * (1 - stopped_share)):
                break
    finally:
        victim.send(signal.SIGCONT)


def burn(*, core: int, until: float, leaving: threading.Event) -> None:
    """Keep one core busy."""
    os.sched_setaffinity(0, {core})
    while time.monotonic() < until and not leaving.is_set():
        sum(range(100_000))


def main() -> int:
    """Press until told to stop."""
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__)
    parser.add_argument("kind", choices=("squeeze", "burn"))
    parser.add_argument("--token", required=True, help="by which undoing finds this process")
    parser.add_argument("--for-s", type=float, required=True)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--start-time", type=int, default=0)
    parser.add_argument("--stopped-share", type=float, default=0.8)
    parser.add_argument("--core", type=int, default=0)
    given = parser.parse_args()
    leaving, until = threading.Event(), time.monotonic() + given.for_s
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: leaving.set())
    watch_lifeline(leaving.set)
    if given.kind == "burn":
        burn(core=given.core, until=until, leaving=leaving)
    else:
        victim = Process(pid=given.pid, start_time=given.start_time)
        squeeze(victim, stopped_share=given.stopped_share, until=until, leaving=leaving)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""When gevent's hub last looked at the sockets, and how long it was busy in between.

Data that is read now was not there at the look before: else it would have been read then. So the time of that
look bounds from below when the data came, and how tight the bound is says how good a measurement is. A tick
makes the hub look at least every ``TICK_S``.
"""

from __future__ import annotations

import time
from typing import Any

import gevent

TICK_S = 0.004


class PollClock:
    """Watches the hub that it is made in."""

    def __init__(self) -> None:
        loop: Any = gevent.get_hub().loop
        self.looked_before_ns = time.time_ns()  # when the look before the current one was over
        self.busy_ns_max = 0  # longest time between two looks since it was last taken
        self._looked_ns = self.looked_before_ns
        self._prepare = loop.prepare()
        self._check = loop.check()
        self._tick = loop.timer(TICK_S, TICK_S)
        self._prepare.start(self._before_look)
        self._check.start(self._after_look)
        self._tick.start(_nothing, update=False)

    def _before_look(self) -> None:
        self.looked_before_ns = self._looked_ns
        busy_ns = time.time_ns() - self._looked_ns
        if busy_ns > self.busy_ns_max:
            self.busy_ns_max = busy_ns

    def _after_look(self) -> None:
        self._looked_ns = time.time_ns()

    def take_busy_ms_max(self) -> float:
        """Return the longest time between two looks since the last call."""
        busy_ns, self.busy_ns_max = self.busy_ns_max, 0
        return busy_ns / 1e6

    def close(self) -> None:
        """Stop watching."""
        for watcher in (self._prepare, self._check, self._tick):
            watcher.stop()
            watcher.close()


def _nothing() -> None:
    """Wake the hub, which is all that a tick is for."""

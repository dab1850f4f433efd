"""The hub's looks at the sockets: who is called when one is ready, when that was, and how long it took.

All sockets lie in one epoll set that gevent's loop watches, so a turn of the hub costs one callback, however
many streams have something to read. Between reads, whoever has something due at a precise moment gets a word.

Data that is read now was not there at the look before: else it would have been read then. So the time of that
look bounds from below when the data came, and how tight the bound is says how good a measurement is. A tick
makes the hub look at least every ``TICK_S``.

A turn of the hub costs about 15 µs, whatever it serves. Where many streams speak, a hub that wakes for each
event spends as much on turns as on events, so a busy one lets events gather for up to ``GATHER_S``. The
kernel has stamped them by then; only what is due sooner, as a request to be sent, cuts that short.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.monkey

TICK_S = 0.004
GATHER_S = 0.0005
_BUSY_READS = 4  # sockets served at one look from which the next look waits for more
READ, WRITE = select.EPOLLIN, select.EPOLLOUT
_READS_PER_WORD = 16  # sockets served before whoever has something due is asked
_Epoll: Any = gevent.monkey.get_original("select", "epoll")  # gevent takes it away
_sleep: Any = gevent.monkey.get_original("time", "sleep")  # the whole process's, not a greenlet's


def nothing() -> None:
    """Stand for a callback that is not there."""


class PollClock:
    """Watches the hub that it is made in, and the sockets that it is given."""

    def __init__(self) -> None:
        loop: Any = gevent.get_hub().loop
        self.looked_before_ns = time.time_ns()  # when the look before the current one was over
        self.busy_ns_max = 0  # longest time between two looks since it was last taken
        self.between: Callable[[], None] = nothing  # called between reads; must not raise
        self.due_s = math.inf  # when, on the monotonic clock, ``between`` has something to do
        self._is_busy = False
        self._looked_ns = self.looked_before_ns
        self._callbacks: dict[int, tuple[Callable[[], None], Callable[[Exception], None]]] = {}
        self._epoll = _Epoll()
        self._prepare = loop.prepare()
        self._check = loop.check()
        self._tick = loop.timer(TICK_S, TICK_S)
        self._ready = loop.io(self._epoll.fileno(), 1)
        self._prepare.start(self._before_look)
        self._check.start(self._after_look)
        self._tick.start(nothing, update=False)  # wakes the hub, which is all that it is for
        self._ready.start(self._serve)

    def watch(
        self, fd: int, events: int, callback: Callable[[], None], on_fault: Callable[[Exception], None]
    ) -> None:
        """Call back in the hub whenever the socket is ready for ``events``, instead of what was before.

        What the callback raises goes to ``on_fault``: it must not escape into the hub.
        """
        change = self._epoll.modify if fd in self._callbacks else self._epoll.register
        change(fd, events)
        self._callbacks[fd] = (callback, on_fault)

    def forget(self, fd: int) -> None:
        """Watch a socket no more; call it before the socket is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _serve(self) -> None:
        """Serve every socket that is ready at this look.

        A callback may be called although its socket is not ready: one before it may have closed another
        socket and opened this one under the same number.
        """
        callbacks, between = self._callbacks, self.between
        ready = self._epoll.poll(0, len(callbacks) + 1)
        self._is_busy = len(ready) >= _BUSY_READS
        for begin in range(0, len(ready), _READS_PER_WORD):
            between()
            for fd, _ in ready[begin : begin + _READS_PER_WORD]:
                found = callbacks.get(fd)
                if found is not None:
                    try:
                        found[0]()
                    except Exception as error:
                        found[1](error)

    def _before_look(self) -> None:
        self.looked_before_ns = self._looked_ns
        busy_ns = time.time_ns() - self._looked_ns
        if busy_ns > self.busy_ns_max:
            self.busy_ns_max = busy_ns
        if self._is_busy:
            self._is_busy = False
            self._gather(GATHER_S - busy_ns / 1e9)

    def _gather(self, left_s: float) -> None:
        """Sleep for so long, but not beyond what is due."""
        pause_s = min(left_s, self.due_s - time.monotonic())
        if pause_s > 0:
            _sleep(pause_s)

    def _after_look(self) -> None:
        self._looked_ns = time.time_ns()

    def take_busy_ms_max(self) -> float:
        """Return the longest time between two looks since the last call."""
        busy_ns, self.busy_ns_max = self.busy_ns_max, 0
        return busy_ns / 1e6

    def close(self) -> None:
        """Stop watching."""
        for watcher in (self._prepare, self._check, self._tick, self._ready):
            watcher.stop()
            watcher.close()
        self._callbacks.clear()
        self._epoll.close()

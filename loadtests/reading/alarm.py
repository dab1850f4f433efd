"""A wake-up call at a precise moment, in gevent's hub.

gevent's own timers count in milliseconds, so half of what they wake is late by more than half of one. The
kernel's timerfd is a file among the sockets that the hub looks at anyway, and wakes it within microseconds.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from loadtests.reading.poll_clock import READ, PollClock

_CLOCK_MONOTONIC = 1  # what time.monotonic() reads
_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Setting(ctypes.Structure):
    """Linux's ``struct itimerspec``: once, at that time."""

    _fields_ = (
        ("again_s", ctypes.c_long),
        ("again_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class Alarm:
    """Calls back once at each time that it is set to; setting it again forgets the time before."""

    def __init__(
        self, polls: PollClock, callback: Callable[[], None], on_fault: Callable[[Exception], None]
    ) -> None:
        self._polls, self._callback = polls, callback
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._setting = _Setting()
        polls.watch(self._fd, READ, self._ring, on_fault)

    def set(self, at_s: float) -> None:
        """Call back at that moment of the monotonic clock; at once if it is over."""
        at_ns = max(1, round(at_s * 1e9))
        self._setting.at_s, self._setting.at_ns = divmod(at_ns, 1_000_000_000)
        _libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(self._setting), None)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set again meanwhile
            return
        self._callback()

    def close(self) -> None:
        """Forget the time that it is set to."""
        self._polls.forget(self._fd)
        os.close(self._fd)

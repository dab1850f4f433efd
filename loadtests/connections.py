"""The endpoint's address and the connections to it that wait for their next request."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

import gevent.monkey

from loadtests.poll_clock import PollClock

# Linux's SO_TIMESTAMPNS, which Python's socket module does not name; the message type has the same number.
SO_TIMESTAMPNS = 35
_IDLE_S_MAX = 2.0  # servers close idle connections, some after 5 s; a request must not meet that
# gevent's own socket class switches tasks; this is the kernel's.
RawSocket: Any = gevent.monkey.get_original("socket", "socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go and how long anything may take."""

    url: str
    host: str
    family: int
    address: Any  # as getaddrinfo gave it, so that no request waits for a name server
    path: str
    head_fields: str  # further header lines, each with its CRLF; may hold the key, so it is shown nowhere
    is_streamed: bool
    timeout_s: float
    connect_timeout_s: float
    first_byte_timeout_s: float
    reuses_connections: bool

    def __repr__(self) -> str:
        return f"Target({self.url!r})"


def keep_stamping() -> Any:
    """Return a socket that keeps the kernel's timestamps switched on as long as it is open.

    The kernel begins to stamp a moment after the first socket on the machine has asked for it, and stops
    after the last has closed; what comes in that moment is not stamped (seen in 5 of 640 short exchanges).
    """
    sock = RawSocket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


class Connections:
    """Idle connections to the target, the latest used first, in the hub whose looks ``polls`` records."""

    def __init__(self, target: Target, polls: PollClock) -> None:
        self.target = target
        self.polls = polls
        self._idle: list[tuple[Any, float]] = []
        self._stamping = keep_stamping()

    def take(self) -> Any | None:
        """Return a connection that is still good; None: make a new one."""
        while self._idle:
            sock, since = self._idle.pop()
            if time.monotonic() - since <= _IDLE_S_MAX and _is_quiet(sock):
                return sock
            sock.close()
        return None

    def give_back(self, sock: Any) -> None:
        """Keep a connection for the next request."""
        self._idle.append((sock, time.monotonic()))

    def close(self) -> None:
        """Close what is idle."""
        self._stamping.close()
        while self._idle:
            self._idle.pop()[0].close()


def _is_quiet(sock: Any) -> bool:
    """Whether nothing has come, neither data nor the end of the connection."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

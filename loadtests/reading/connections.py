"""The endpoint's address, and connections to it: one of them, and those that wait for their next request."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import Any

import gevent
import gevent.monkey

from loadtests.reading.poll_clock import PollClock
from loadtests.reading.stream import BYTES_MAX_DEFAULT, EVENTS_MAX_DEFAULT
from loadtests.reading.tls import TlsLayer

# Linux's SO_TIMESTAMPNS, which Python's socket module does not name; the message type has the same number.
SO_TIMESTAMPNS = 35
_STAMPING_S_MAX = 1.0  # where it takes longer, the kernel does not stamp at all
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
    sends_done: bool = True  # False: a stream is whole without [DONE]
    tls: ssl.SSLContext | None = None  # None: plain HTTP
    server_name: str = ""  # that the certificate has to be valid for
    events_max: int = EVENTS_MAX_DEFAULT  # of one answer; what goes on beyond it is given up
    bytes_max: int = BYTES_MAX_DEFAULT
    name: str | None = None  # None: it is the only one

    def __repr__(self) -> str:
        return f"Target({self.url!r})"


def keep_stamping() -> Any:
    """Return a socket that keeps the kernel's timestamps switched on as long as it is open, once they are.

    The kernel begins to stamp a moment after the first socket on the machine has asked for it, and stops
    after the last has closed; what comes in that moment is not stamped (seen in 5 of 640 short exchanges).
    How long it is depends on what else the machine does, so it is waited for, if not without end.
    """
    sock = RawSocket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    deadline_s = time.monotonic() + _STAMPING_S_MAX
    with contextlib.suppress(OSError):  # a machine without loopback: what comes is then counted as unstamped
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(_STAMPING_S_MAX)
        while not _is_stamped_by_the_kernel(sock) and time.monotonic() < deadline_s:
            gevent.sleep(0.001)
    return sock


def _is_stamped_by_the_kernel(sock: Any) -> bool:
    """Say whether what the socket sends to itself is stamped as it comes, and not only as it is read."""
    sock.sendto(b"x", sock.getsockname())
    sent_ns = time.time_ns()
    _, ancillary, _, _ = sock.recvmsg(1, 64)
    stamps = [data for _, kind, data in ancillary if kind == SO_TIMESTAMPNS]
    if not stamps:
        return False
    seconds, nanoseconds = struct.unpack("@qq", stamps[0])
    return bool(seconds * 1_000_000_000 + nanoseconds <= sent_ns)


class Link:
    """One connection to the target: its socket, its TLS where there is some, and what is still to be sent."""

    __slots__ = ("_unsent", "fd", "sock", "tls")

    def __init__(self, target: Target) -> None:
        self.sock = RawSocket(target.family, socket.SOCK_STREAM)
        self.fd: int = self.sock.fileno()
        self.tls: TlsLayer | None = None  # None: plain, or not connected yet
        self._unsent = memoryview(b"")
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # before connecting: the first read counts

    def connect(self, address: Any) -> None:
        """Begin to connect.

        Raises:
            OSError: it cannot even begin.
        """
        code = self.sock.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

    def is_connected(self) -> bool:
        """Return whether it is connected now.

        Raises:
            OSError: it never will be.
        """
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        try:
            self.sock.getpeername()
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return False
            raise
        return True

    def send(self, data: bytes) -> bool:
        """Send what is left from before and this, as far as it goes now; return whether all has gone."""
        if data:
            self._unsent = memoryview(bytes(self._unsent) + data if self._unsent else data)
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        return not self._unsent

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class Connections:
    """Idle connections to the target, the latest used first, in the hub whose looks ``polls`` records."""

    def __init__(self, target: Target, polls: PollClock) -> None:
        self.target = target
        self.polls = polls
        self._idle: list[tuple[Link, float]] = []
        self._stamping = keep_stamping()

    def take(self) -> Link | None:
        """Return a connection that is still good; None: make a new one."""
        while self._idle:
            link, since = self._idle.pop()
            if time.monotonic() - since <= _IDLE_S_MAX and _is_quiet(link.sock):
                return link
            link.close()
        return None

    def give_back(self, link: Link) -> None:
        """Keep a connection for the next request."""
        self._idle.append((link, time.monotonic()))

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

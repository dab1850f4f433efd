"""The golden endpoint: a process that sends streamed answers by plan and knows when it sent each event.

It is no inference server. It answers chat completions on loopback, each stream event by event on an absolute
plan, and notes CLOCK_REALTIME right before each write. The kernel stamps what arrives on loopback inside that
very write, so truth and client's stamp are microseconds apart. A write that took long (we were taken off the
core in it) is noted with its length: so long its time is uncertain. Nothing is written to disk while it
serves: told ``stop`` on standard input, it leaves its record in a file; at end of file there, it just leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from loadtests.calibration.golden_record import GoldenRecord, GoldenStream, write_golden
from loadtests.endpoint.answers import Ask, StreamText
from loadtests.reading.tls import TlsError, TlsLayer
from probes.errors import ConfigError, SuiteError
from probes.event import to_json_line

TICK_NS = 250_000
SLOW_NS = 100_000  # a write usually takes 5 to 20 µs
EVENTS_MAX = 20_000_000  # 160 MB of times
TOKENS_MAX = 1_000_000
REQUEST_BYTES_MAX = 1024 * 1024
_TURNS = 8  # connections served before it is looked whether an event is due
_SO_TIMESTAMPNS = 35
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_REFUSAL = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_WORDS = (" measure", " twice", " then", " trust", " the", " slower", " clock")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_TEXT = StreamText(
    Ask(prompt="", model="golden", input_tokens=1, output_tokens=1, is_streamed=True, wants_usage=True),
    answer_id="chatcmpl-golden",
    created=0,
)
_FIRST = _HEAD + _chunk(_TEXT.role())
_EVENTS = tuple(_chunk(_TEXT.token(word)) for word in _WORDS)


@dataclass(slots=True, eq=False)
class _Link:
    """One connection: what of a request has come, and the answer that is being sent."""

    sock: socket.socket
    fd: int
    received: bytearray = field(default_factory=bytearray)
    stream: GoldenStream | None = None  # None: between two requests
    left: int = 0
    ticks: int = 0  # between two events
    tokens: int = 0
    tls: TlsLayer | None = None  # None: plain HTTP


class GoldenServer:
    """Serves until told to stop; times are planned on the monotonic clock."""

    def __init__(
        self, listener: socket.socket, *, first_ns: int, gap_ns: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._listener, self._tls = listener, tls
        self._first_ns, self._gap_ns = first_ns, gap_ns
        self._links: dict[int, _Link] = {}
        self._due: dict[int, list[_Link]] = {}  # by tick
        self._ticks: list[int] = []  # a heap of its keys
        self._streams: list[GoldenStream] = []
        self._events = self._blocked = 0
        self._epoll = select.epoll()
        self._t0_ns = time.monotonic_ns()
        self._wall_ns = time.time_ns() - time.monotonic_ns()  # wall minus monotonic clock
        self._tick = 0

    def serve(self) -> bool:
        """Serve; return whether the end was asked for, and not just come upon us."""
        os.set_blocking(0, False)
        self._listener.setblocking(False)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(0, select.EPOLLIN)
        waiting: list[int] = []
        while True:
            wait_s = 0.0 if waiting else self._send_due()
            if waiting or select.select([self._epoll], [], [], wait_s)[0]:  # epoll itself counts in ms
                waiting = waiting or [fd for fd, _ in self._epoll.poll(0)]
                now, waiting = waiting[:_TURNS], waiting[_TURNS:]
                for fd in now:
                    if fd == 0:
                        return b"stop" in _read_some(0)
                    self._accept() if fd == self._listener.fileno() else self._read(fd)
                self._send_due()

    def _accept(self) -> None:
        for _ in range(_TURNS):
            try:
                sock, _ = self._listener.accept()
            except OSError:  # nobody is waiting any more, or no more files: the client will say so
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            tls = None if self._tls is None else TlsLayer(self._tls, "", is_server=True)
            self._links[sock.fileno()] = _Link(sock, sock.fileno(), tls=tls)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, fd: int) -> None:
        link = self._links.get(fd)
        if link is None:
            return
        try:
            data, ancillary, _, _ = link.sock.recvmsg(65536, 64)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        now_ns = time.time_ns()
        if not data or link.stream is not None:  # it has gone, or speaks out of turn
            self._drop(link)
            return
        if link.tls is not None:
            data = self._decrypted(link, link.tls, data)
            if not data:
                return
        link.received += data
        length = _whole_length(link.received)
        if length == len(link.received):
            self._begin(link, _stamp_ns(ancillary) or now_ns)
        elif length > REQUEST_BYTES_MAX or len(link.received) > REQUEST_BYTES_MAX:
            self._refuse(link, 413)

    def _decrypted(self, link: _Link, tls: TlsLayer, data: bytes) -> bytes:
        """Return what of a request these bytes carry; the handshake comes first."""
        try:
            if not tls.is_established:
                tls.shake(data)
                data = b""  # what follows the handshake in it waits in there
            found = tls.decrypt(data) if tls.is_established else b""
            answer = tls.to_send()
            if answer and link.sock.send(answer) != len(answer):
                raise BlockingIOError
        except (TlsError, OSError):
            self._drop(link)
            return b""
        if tls.is_ended or tls.fault:
            self._drop(link)
            return b""
        return found

    def _begin(self, link: _Link, t_received_ns: int) -> None:
        """Plan an answer and send what comes before its content."""
        try:
            request_id, ask = _parse(bytes(link.received))
            tokens = int(ask.get("max_tokens", 64))
            plan = ask.get("golden", {})
            first_ns, gap_ns = (
                max(TICK_NS, round(plan[key] * 1e6)) if key in plan else default
                for key, default in (("first_ms", self._first_ns), ("gap_ms", self._gap_ns))
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            self._refuse(link, 400)
            return
        if not 0 < tokens <= TOKENS_MAX or self._events + tokens > EVENTS_MAX:
            self._refuse(link, 503)
            return
        self._events += tokens
        link.received.clear()
        link.left = link.tokens = tokens
        link.ticks = max(1, round(gap_ns / TICK_NS))
        tick = max(self._tick, (time.monotonic_ns() + first_ns - self._t0_ns) // TICK_NS) + 1
        planned_ns = self._wall_ns + self._t0_ns + tick * TICK_NS
        link.stream = GoldenStream(request_id, t_received_ns, planned_ns, link.ticks * TICK_NS)
        self._streams.append(link.stream)
        self._plan(tick, link)
        try:
            link.sock.send(_FIRST if link.tls is None else link.tls.encrypt(_FIRST))
        except OSError:
            self._drop(link)

    def _plan(self, tick: int, link: _Link) -> None:
        if tick not in self._due:
            self._due[tick] = []
            heappush(self._ticks, tick)
        self._due[tick].append(link)

    def _send_due(self) -> float:
        """Send every event whose tick has come; return the seconds until the next, at most one."""
        self._tick = (time.monotonic_ns() - self._t0_ns) // TICK_NS
        while self._ticks and self._ticks[0] <= self._tick:
            tick = heappop(self._ticks)
            self._send(tick, self._due.pop(tick))
        if not self._ticks:
            return 1.0
        return min(1.0, max(0.0, (self._t0_ns + self._ticks[0] * TICK_NS - time.monotonic_ns()) / 1e9))

    def _send(self, tick: int, links: list[_Link]) -> None:
        """Send one event to each of these; what is done per event here decides how much can be served."""
        write, now, later = os.write, time.time_ns, self._due
        data = _EVENTS[tick % len(_EVENTS)]
        before, last_ns = None, 0
        for link in links:
            stream = link.stream
            if stream is None:  # dropped meanwhile
                continue
            if link.left == 1:
                data = data + _ending(link.tokens)
            sent = data if link.tls is None else link.tls.encrypt(data)
            t_ns = now()
            if before is not None and t_ns - last_ns > SLOW_NS:
                before.slow.append((len(before.sends_ns) - 1, t_ns - last_ns))
            stream.sends_ns.append(t_ns)
            before, last_ns = stream, t_ns
            try:
                if write(link.fd, sent) != len(sent):
                    raise BlockingIOError
            except OSError as error:
                self._blocked += isinstance(error, BlockingIOError)
                self._drop(link)
                continue
            link.left -= 1
            if link.left:
                following = later.get(tick + link.ticks)
                if following is None:
                    self._plan(tick + link.ticks, link)
                else:
                    following.append(link)
            else:
                link.stream, data = None, _EVENTS[tick % len(_EVENTS)]
        if before is not None and now() - last_ns > SLOW_NS:
            before.slow.append((len(before.sends_ns) - 1, now() - last_ns))

    def _refuse(self, link: _Link, status: int) -> None:
        link.sock.setblocking(True)
        link.sock.settimeout(0.1)
        with contextlib.suppress(OSError):  # whoever is refused may have gone already
            refusal = _REFUSAL % status
            link.sock.sendall(refusal if link.tls is None else link.tls.encrypt(refusal))
        self._drop(link)

    def _drop(self, link: _Link) -> None:
        link.stream = None
        self._links.pop(link.fd, None)
        link.sock.close()

    def record(self) -> GoldenRecord:
        """Return what was sent."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return GoldenRecord(
            streams=tuple(self._streams),
            clock_step_ns=time.time_ns() - time.monotonic_ns() - self._wall_ns,
            blocked=self._blocked,
            cpu_s=usage.ru_utime + usage.ru_stime,
            wall_s=(time.monotonic_ns() - self._t0_ns) / 1e9,
        )


_endings: dict[int, bytes] = {}


def _ending(tokens: int) -> bytes:
    """Return what follows the last token: finish reason, usage, end mark."""
    if tokens not in _endings:
        if len(_endings) > 4096:
            _endings.clear()
        _endings[tokens] = _chunk(b"".join(_TEXT.ending(tokens))) + b"0\r\n\r\n"
    return _endings[tokens]


def _whole_length(received: bytearray) -> int:
    """Return how long this request is with its body; 0: its head has not come whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    at = received.lower().find(b"\r\ncontent-length:", 0, end)
    if at < 0:
        return end + 4
    value = bytes(received[at + 17 : received.find(b"\r\n", at + 2)]).strip()
    return end + 4 + int(value) if value.isdigit() else REQUEST_BYTES_MAX + 1


def _parse(request: bytes) -> tuple[str, dict[str, Any]]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"POST ") or b"/chat/completions " not in first:
        raise ValueError("no such thing here")
    fields = dict(line.lower().split(b":", 1) for line in lines)
    ask = json.loads(body)
    if not isinstance(ask, dict):
        raise ValueError("not a JSON object")
    return fields.get(b"x-request-id", b"").strip().decode()[:1000], ask


def _stamp_ns(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = struct.unpack_from("@qq", data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return None


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


def make_parser() -> argparse.ArgumentParser:
    """Return the options of the golden endpoint."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.calibration.golden", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=0, help="Port on loopback; 0 takes a free one.")
    add("--record", type=Path, required=True, help="File that receives the true times.")
    add("--first-ms", type=float, default=20.0, help="Time to the first event, where a request says nothing.")
    add("--gap-ms", type=float, default=10.0, help="Time between events, where a request says nothing.")
    add("--core", type=int, default=None, help="Core to stay on.")
    add("--tls", type=Path, default=None, help="Speak TLS, with the key and certificate in this file.")
    return parser


def _main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us stops us
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    try:
        listener = socket.create_server(("127.0.0.1", options.port), backlog=4096)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"127.0.0.1:{options.port}: cannot listen there: {error}") from error
    listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    with contextlib.suppress(OSError):  # a kernel may have it built without
        # Other congestion controls pace: a timer for each event, and the event later than we have noted.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    tls = None
    if options.tls is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls)
    server = GoldenServer(
        listener, first_ns=round(options.first_ms * 1e6), gap_ns=round(options.gap_ms * 1e6), tls=tls
    )
    sys.stdout.write(to_json_line({"port": listener.getsockname()[1], "pid": os.getpid()}))
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    gc.disable()  # it lives for seconds and makes no cycles; a collection would make events late
    if server.serve():
        write_golden(options.record, server.record())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_main(sys.argv[1:]))
    except SuiteError as error:
        sys.stderr.write(f"golden endpoint: {error}\n")
        sys.exit(2)

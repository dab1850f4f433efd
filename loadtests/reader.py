"""One HTTP exchange in gevent's event loop: connect, send, and read with the kernel's receive timestamps.

No greenlet per request and no task switch per token: a callback in the hub takes what a socket has, asks the
kernel when it came, and counts it. Callbacks must never block and never raise.

A kernel stamp is that of the last segment in a read. So a read with one event is exact; of a read with
several, only the last event's time is known, and the others lie between the hub's previous look and it. (The
end of a connection counts as a segment; a stream that ends with it right after content has failed anyway.)
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent

from loadtests.completion import DETAIL_CHARS_MAX, Completion
from loadtests.connections import SO_TIMESTAMPNS, Connections, RawSocket
from loadtests.server_sent_events import EventDecoder, EventTooLongError
from loadtests.stream import AnswerDecoder, BadHttpError
from probes.request import Request

READ_BYTES = 256 * 1024
BODY_BYTES_MAX = 32 * 1024 * 1024
GAP_US_MAX = 2**32 - 1  # what one place of the array holds: more than any time-out allows
_ANCILLARY_BYTES = 64
_STAMP = struct.Struct("@qq")
_READ, _WRITE = 1, 2
_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
_buffer = bytearray(READ_BYTES)
_view = memoryview(_buffer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One arrival: its place in the schedule and what is sent."""

    index: int
    worker: int
    t_intended_ns: int
    body: bytes
    output_tokens: int
    request_id: str
    keeps_text: bool = False  # whether the answer's text is wanted, for the next turn of a conversation
    hang_up_after_events: int | None = None  # None: the client stays to the end


class Exchange:
    """One request and its answer. ``on_end`` gets the finished row, once, in the hub."""

    def __init__(self, errand: Errand, connections: Connections, on_end: Callable[[Exchange], None]) -> None:
        self.errand = errand
        self.row: Request | None = None  # None: still going on
        self._connections = connections
        self._target = connections.target
        self._polls = connections.polls
        self._on_end = on_end
        self._sock: Any = None
        self._watcher: Any = None
        self._unsent = memoryview(b"")
        self._answer = AnswerDecoder()
        self._events = EventDecoder()
        self._completion = Completion(keeps_text=errand.keeps_text)
        self._is_event_stream = False
        self._body = bytearray()
        self._begun_s = time.monotonic()
        self._deadline_s = self._begun_s + self._target.timeout_s
        self._connect_ms: float | None = None
        self._is_connecting = False
        self._t_sent_ns: int | None = None
        self._t_first_ns: int | None = None
        self._t_last_ns: int | None = None
        self._first_uncertain_ns = self._last_uncertain_ns = 0
        self._gaps_us = array("I")  # no object per token
        self._reads = self._unstamped = self._coalesced = 0
        self._lag_ns_max = 0

    @property
    def text(self) -> str:
        """Return what was answered so far, where the errand asked to keep it."""
        return "".join(self._completion.texts)

    def begin(self) -> None:
        """Send the request on an idle connection or on a new one."""
        target, errand = self._target, self.errand
        head = (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: application/json\r\n"
            f"Accept-Encoding: identity\r\nx-request-id: {errand.request_id}\r\n"
            f"Content-Length: {len(errand.body)}\r\n{target.head_fields}\r\n"
        )
        self._unsent = memoryview(head.encode("latin-1") + errand.body)
        try:
            self._sock = self._connections.take() if target.reuses_connections else None
            if self._sock is not None:
                self._watch(_READ, self._on_readable)
                self._send()
            else:
                self._connect()
        except OSError as error:
            self._fail_with(error)

    def _connect(self) -> None:
        self._sock = RawSocket(self._target.family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setsockopt(
            socket.SOL_SOCKET, SO_TIMESTAMPNS, 1
        )  # before connecting: the first read counts
        self._is_connecting = True
        code = self._sock.connect_ex(self._target.address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        self._watch(_WRITE, self._on_connected)

    def _watch(self, events: int, callback: Callable[[], None]) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
        self._watcher = gevent.get_hub().loop.io(self._sock.fileno(), events)
        self._watcher.start(self._guarded, callback)

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Let no fault of ours escape into the hub: the request would neither end nor be counted."""
        try:
            callback()
        except OSError as error:
            self._fail_with(error)
        except Exception as error:
            self.fail("client_bug", f"{type(error).__name__}: {error}")

    def _on_connected(self) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        self._is_connecting = False
        self._connect_ms = (time.monotonic() - self._begun_s) * 1000
        self._watch(_READ, self._on_readable)
        self._send()

    def _send(self) -> None:
        if self._t_sent_ns is None:
            self._t_sent_ns = time.time_ns()
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        self._unsent = self._unsent[sent:]
        if self._unsent:  # a long prompt and a slow reader
            self._watch(_READ | _WRITE, self._on_ready)

    def _on_ready(self) -> None:
        """Go on sending; an answer that comes before all is sent is read afterwards or fails the sending."""
        self._send()
        if not self._unsent:
            self._watch(_READ, self._on_readable)

    def _on_readable(self) -> None:
        try:
            count, ancillary, _, _ = self._sock.recvmsg_into((_buffer,), _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        now_ns = time.time_ns()
        if not count:
            self._on_closed(now_ns)
            return
        stamp_ns = _stamp_of(ancillary)
        if stamp_ns is None:
            self._unstamped += 1
        elif now_ns - stamp_ns > self._lag_ns_max:
            self._lag_ns_max = now_ns - stamp_ns
        self._reads += 1
        self._take(bytes(_view[:count]), stamp_ns or now_ns, is_stamped=stamp_ns is not None)

    def _take(self, data: bytes, stamp_ns: int, *, is_stamped: bool) -> None:
        try:
            contents, has_more_after = self._count(self._answer.feed(data))
        except BadHttpError as error:
            self.fail("bad_http", str(error), t_end_ns=stamp_ns)
            return
        except EventTooLongError as error:
            self.fail("bad_event", str(error), t_end_ns=stamp_ns)
            return
        if contents:
            self._note_times(contents, stamp_ns, is_exact=is_stamped and not has_more_after)
        if self._answer.is_complete and self.row is None:
            self._end_whole(stamp_ns)
        limit = self.errand.hang_up_after_events
        if limit is not None and self.row is None and self._completion.events >= limit:
            self.hang_up(f"after {self._completion.events} events, as the workload wants", t_end_ns=stamp_ns)

    def hang_up(self, detail: str, *, t_end_ns: int | None = None) -> None:
        """Leave on purpose; who leaves before any content came has not been served."""
        self.fail("hung_up" if self._completion.events else "gave_up", detail, t_end_ns=t_end_ns)

    def _count(self, pieces: list[bytes]) -> tuple[int, bool]:
        """Return how many events with content these pieces hold, and whether another event comes after."""
        if not self._is_event_stream:
            if not self._choose_form():
                self._body += b"".join(pieces)
                if len(self._body) > BODY_BYTES_MAX:
                    raise BadHttpError(f"an answer of more than {BODY_BYTES_MAX} bytes")
                return 0, False
            self._is_event_stream = True
        contents, has_content = 0, True
        for piece in pieces:
            for event in self._events.feed(piece):
                has_content = self._completion.take_event(event)
                contents += has_content
        return contents, not has_content

    def _choose_form(self) -> bool:
        head = self._answer.head
        if head is None or head.status != 200 or not self._target.is_streamed:
            return False
        return head.fields.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    def _note_times(self, contents: int, stamp_ns: int, *, is_exact: bool) -> None:
        self._last_uncertain_ns = 0 if is_exact else self._uncertain_ns(stamp_ns)
        if contents > 1:
            self._coalesced += 1
        if self._t_first_ns is None or self._t_last_ns is None:
            self._t_first_ns = stamp_ns
            if contents > 1 or not is_exact:
                self._first_uncertain_ns = self._uncertain_ns(stamp_ns)
        else:
            self._gaps_us.append(min(max(0, stamp_ns - self._t_last_ns) // 1000, GAP_US_MAX))
        if contents > 1:  # they came somewhere in this gap; 0 says "together with the one before"
            self._gaps_us.extend([0] * (contents - 1))
        self._t_last_ns = stamp_ns

    def _uncertain_ns(self, stamp_ns: int) -> int:
        """Return how much earlier than its stamp something in this read may have come."""
        assert self._t_sent_ns is not None
        return max(0, stamp_ns - max(self._polls.looked_before_ns, self._t_sent_ns))

    def _on_closed(self, now_ns: int) -> None:
        if self._answer.end_of_connection():
            self._end_whole(now_ns)
        elif self._answer.head is None:
            self.fail("closed", "the server closed the connection without an answer", t_end_ns=now_ns)
        else:
            events = self._completion.events
            self.fail("truncated", f"the connection was closed after {events} events", t_end_ns=now_ns)

    def _end_whole(self, t_end_ns: int) -> None:
        """Judge an answer that is whole as HTTP has it."""
        head = self._answer.head
        assert head is not None
        kind, detail = self._judge_head(head.status, head.fields)
        if kind is None and not self._is_event_stream and self._completion.take_whole(bytes(self._body)):
            self._t_first_ns = self._t_last_ns = t_end_ns
        if kind is None:
            kind, detail = self._completion.judge_whole(
                is_streamed=self._is_event_stream, output_tokens=self.errand.output_tokens
            )
        self._finish(kind, detail, t_end_ns)

    def _judge_head(self, status: int, fields: dict[str, str]) -> tuple[str | None, str]:
        shown = bytes(self._body[:DETAIL_CHARS_MAX]).decode("utf-8", "replace")
        if status != 200:
            retry_after = fields.get("retry-after")
            extra = f" (Retry-After: {retry_after})" if retry_after else ""
            return _kind_of_status(status), f"HTTP {status}{extra}: {shown}"
        if fields.get("content-encoding", "identity").lower() != "identity":
            return "content_type", f"content-encoding {fields['content-encoding']!r} was not asked for"
        wanted = "text/event-stream" if self._target.is_streamed else "application/json"
        got = fields.get("content-type", "").partition(";")[0].strip().lower()
        if got != wanted:
            return "content_type", f"wanted {wanted}, got {got!r}: {shown}"
        return None, ""

    def check_deadlines(self, now_s: float) -> None:
        """Give up what has taken too long."""
        begun = self._begun_s
        if now_s >= self._deadline_s:
            self.fail("timeout", f"no end within {self._target.timeout_s:g} s")
        elif self._is_connecting and now_s - begun >= self._target.connect_timeout_s:
            self.fail("connect_timeout", f"no connection within {self._target.connect_timeout_s:g} s")
        elif not self._reads and now_s - begun >= self._target.first_byte_timeout_s:
            self.fail("first_byte_timeout", f"no byte within {self._target.first_byte_timeout_s:g} s")

    def _fail_with(self, error: OSError) -> None:
        detail = f"{error.strerror or error} after {self._completion.events} events"
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM):
            self.fail("client_limit", f"this machine cannot open one more connection: {error.strerror}")
        elif error.errno == errno.ECONNREFUSED:
            self.fail("refused", detail)
        elif self._is_connecting or self._t_sent_ns is None:
            self.fail("connect_failed", detail)
        else:
            self.fail("reset", detail)

    def fail(self, kind: str, detail: str, *, t_end_ns: int | None = None) -> None:
        """End the exchange as failed."""
        if self.row is None:
            self._finish(kind, detail, t_end_ns or time.time_ns())

    def _finish(self, kind: str | None, detail: str, t_end_ns: int) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
        if self._sock is not None:
            may_stay = kind is None and self._answer.keeps_alive and self._target.reuses_connections
            self._connections.give_back(self._sock) if may_stay else self._sock.close()
        self.row = self._make_row(kind, detail, t_end_ns)
        self._on_end(self)

    def _make_row(self, kind: str | None, detail: str, t_end_ns: int) -> Request:
        head, completion = self._answer.head, self._completion
        return Request(
            index=self.errand.index,
            worker=self.errand.worker,
            endpoint=self._target.url,
            t_intended_ns=self.errand.t_intended_ns,
            t_sent_ns=self._t_sent_ns,
            t_first_ns=self._t_first_ns,
            t_last_ns=self._t_last_ns,
            t_end_ns=t_end_ns,
            connect_ms=self._connect_ms,
            status=None if head is None else head.status,
            error=kind,
            error_detail=_recordable(detail[:DETAIL_CHARS_MAX]),
            retry_after_s=None if head is None else _retry_after_s(head.fields.get("retry-after", "")),
            is_hung_up=kind == "hung_up",
            replica="" if head is None else head.fields.get("x-replica", "")[:100],
            finish_reason=_recordable(completion.finish_reason[:100]),
            is_done=completion.is_done,
            events=completion.events,
            chars=completion.chars,
            tokens_in=completion.tokens_in,
            tokens_out=completion.tokens_out,
            tokens_cached=completion.tokens_cached,
            choices=completion.choices,
            events_garbled=completion.garbled,
            gaps_us=tuple(self._gaps_us),
            reads=self._reads,
            reads_unstamped=self._unstamped,
            reads_coalesced=self._coalesced,
            lag_ms_max=self._lag_ns_max / 1e6,
            first_uncertain_ms=self._first_uncertain_ns / 1e6,
            last_uncertain_ms=self._last_uncertain_ns / 1e6,
        )


def _stamp_of(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _STAMP.size:
            seconds, nanoseconds = _STAMP.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return None


def _recordable(text: str) -> str:
    """Return a server's words without lone surrogates, which JSON can name and no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _retry_after_s(value: str) -> float | None:
    """Return the seconds that Retry-After names; a date is left to the error's detail."""
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _kind_of_status(status: int) -> str:
    if status == 429:
        return "http_429"
    return {2: "content_type", 3: "redirect", 4: "http_4xx"}.get(status // 100, "http_5xx")

"""One HTTP exchange in gevent's event loop: connect, send, and read with the kernel's receive timestamps.

No greenlet per request and no task switch per token: a callback in the hub takes what a socket has, asks the
kernel when it came, and counts it. Callbacks must never block.

The end of a connection counts as a segment for the kernel's stamps; a stream that ends with it right after
content has failed anyway.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtests.reading.answer_head import judge_head, retry_after_s
from loadtests.reading.completion import DETAIL_CHARS_MAX, Completion
from loadtests.reading.connections import SO_TIMESTAMPNS, Connections, Link
from loadtests.reading.event_times import EventTimes
from loadtests.reading.poll_clock import READ, WRITE
from loadtests.reading.server_sent_events import EventDecoder, EventTooLongError
from loadtests.reading.stream import AnswerDecoder, BadHttpError
from loadtests.reading.tls import TlsError, TlsLayer
from probes.request import Request

READ_BYTES = 256 * 1024
BODY_BYTES_MAX = 32 * 1024 * 1024
_UNWANTED_BYTES_MAX = 64 * 1024  # of a body that only serves to show what came instead of an answer
_ANCILLARY_BYTES = 64
_STAMP = struct.Struct("@qq")
_buffer = bytearray(READ_BYTES)
_view = memoryview(_buffer)
_buffers = (_buffer,)
_now_ns = time.time_ns
_unpack_stamp = _STAMP.unpack
_STAMP_BYTES = _STAMP.size
# The size line of a chunk, by the length of all of the chunk; a length that is not there cannot be.
_SIZE_LINES = {len(line) + size + 2: line for size in range(1, 8192) for line in (b"%x\r\n" % size,)}

Frame = tuple[bytes, bytes, int]  # what a chunk has before its text and after it, and the size of both


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
    session: int | None = None  # user or conversation that it belongs to; None: it stands alone
    turn: int | None = None
    endpoint: str | None = None  # that it is planned for; None: there is only one


class Exchange:
    """One request and its answer. ``on_end`` gets the finished row, once, in the hub."""

    __slots__ = (
        "_answer",
        "_begun_s",
        "_body",
        "_bytes_left",
        "_completion",
        "_connect_ms",
        "_connections",
        "_deadline_s",
        "_events",
        "_events_stop",
        "_frame",
        "_is_connecting",
        "_is_event_stream",
        "_lag_ns_max",
        "_link",
        "_on_end",
        "_polls",
        "_reads",
        "_recvmsg_into",
        "_request",
        "_t_sent_ns",
        "_target",
        "_times",
        "_tls_ms",
        "_unstamped",
        "errand",
        "row",
    )

    def __init__(self, errand: Errand, connections: Connections, on_end: Callable[[Exchange], None]) -> None:
        self.errand = errand
        self.row: Request | None = None  # None: still going on
        self._connections = connections
        self._target = connections.target
        self._polls = connections.polls
        self._on_end = on_end
        self._link: Link | None = None  # None: not begun, or ended
        self._recvmsg_into: Any = None
        self._request = b""
        self._answer = AnswerDecoder()
        self._events = EventDecoder()
        self._completion = Completion(keeps_text=errand.keeps_text)
        self._is_event_stream = False
        self._frame: Frame | None = None  # None: the next read has to be taken apart
        self._body = bytearray()
        self._begun_s = time.monotonic()
        self._deadline_s = self._begun_s + self._target.timeout_s
        self._connect_ms: float | None = None
        self._tls_ms: float | None = None
        self._is_connecting = False
        self._t_sent_ns: int | None = None
        self._times = EventTimes()
        self._reads = self._unstamped = 0
        self._lag_ns_max = 0
        self._bytes_left = self._target.bytes_max
        self._events_stop = min(
            errand.hang_up_after_events or self._target.events_max, self._target.events_max
        )

    @property
    def events(self) -> int:
        """Return how many events with content have come so far."""
        return self._completion.events

    @property
    def text(self) -> str:
        """Return what was answered so far, where the errand asked to keep it."""
        return "".join(self._completion.texts)

    def tail(self, chars: int) -> str:
        """Return the end of what was answered so far, where it is kept."""
        return "".join(self._completion.texts[-chars:])[-chars:]

    def begin(self) -> None:
        """Send the request on an idle connection or on a new one."""
        target, errand = self._target, self.errand
        head = (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.host}\r\nContent-Type: application/json\r\n"
            f"Accept-Encoding: identity\r\nx-request-id: {errand.request_id}\r\n"
            f"Content-Length: {len(errand.body)}\r\n{target.head_fields}\r\n"
        )
        self._request = head.encode("latin-1") + errand.body
        try:
            self._link = self._connections.take() if target.reuses_connections else None
            if self._link is not None:
                self._send_request()
            else:
                self._link = Link(target)
                self._is_connecting = True
                self._link.connect(target.address)
                self._watch(WRITE, self._on_connected)
        except OSError as error:
            self._on_fault(error)

    def _watch(self, events: int, callback: Callable[[], None]) -> None:
        assert self._link is not None
        self._polls.watch(self._link.fd, events, callback, self._on_fault)

    def _on_fault(self, error: Exception) -> None:
        """End with what a callback has raised: a request must end and be counted, whatever happens."""
        if self.row is not None:
            return
        if isinstance(error, OSError):
            self._fail_with(error)
        elif isinstance(error, TlsError):
            self.fail("tls_failed", str(error))
        else:
            self.fail("client_bug", f"{type(error).__name__}: {error}")

    def _on_connected(self) -> None:
        assert self._link is not None
        if not self._link.is_connected():
            return
        self._connect_ms = (time.monotonic() - self._begun_s) * 1000
        context = self._target.tls
        if context is None:
            self._is_connecting = False
            self._send_request()
            return
        self._link.tls = TlsLayer(context, self._target.server_name)
        self._shake(b"")

    def _shake(self, data: bytes) -> None:
        """Go on with the TLS handshake."""
        link = self._link
        assert link is not None
        assert link.tls is not None
        try:
            is_done = link.tls.shake(data)
        finally:
            is_sent = link.send(link.tls.to_send())  # if it failed, the server is told so
        if not is_done:
            self._watch(READ if is_sent else READ | WRITE, self._on_shaking)
            return
        self._is_connecting = False
        assert self._connect_ms is not None
        self._tls_ms = (time.monotonic() - self._begun_s) * 1000 - self._connect_ms
        self._send_request()

    def _on_shaking(self) -> None:
        assert self._link is not None
        try:
            data = self._link.sock.recv(READ_BYTES)
        except BlockingIOError:
            self._shake(b"")
            return
        if not data:
            raise TlsError("the server closed the connection in the TLS handshake; is it http://?")
        self._shake(data)

    def _send_request(self) -> None:
        link, request = self._link, self._request
        assert link is not None
        self._request = b""
        self._recvmsg_into = link.sock.recvmsg_into
        if link.tls is not None:
            request = link.tls.encrypt(request)
        self._t_sent_ns = time.time_ns()
        self._watch_reading(is_sent=link.send(request))

    def _watch_reading(self, *, is_sent: bool) -> None:
        assert self._link is not None
        if not is_sent:  # a long prompt and a slow reader
            self._watch(READ | WRITE, self._on_ready)
        else:
            self._watch(READ, self._on_readable if self._link.tls is None else self._on_readable_tls)

    def _on_ready(self) -> None:
        """Go on sending; an answer that comes before all is sent is read first.

        Who refuses a long prompt answers and closes, often without a look at the rest of it: sending would
        then meet a reset that hides the answer.
        """
        link = self._link
        assert link is not None
        (self._on_readable if link.tls is None else self._on_readable_tls)()
        if self.row is not None:
            return
        try:
            is_sent = link.send(b"")
        except (BrokenPipeError, ConnectionResetError):
            kind, detail = (None, "") if self._answer.head is None else self._judge_head()
            if kind is None:
                raise
            self.fail(kind, detail)
            return
        if is_sent:
            self._watch_reading(is_sent=True)

    def _receive(self) -> tuple[bytes, int, int | None]:
        """Read once; return the bytes, none at the end, the time now, and the kernel's stamp if any.

        Raises:
            BlockingIOError: there is nothing.
        """
        recvmsg_into = self._recvmsg_into  # Python calls what it has in hand faster than an attribute
        count, ancillary, _, _ = recvmsg_into(_buffers, _ANCILLARY_BYTES)
        now_ns = _now_ns()
        if not count:
            return b"", now_ns, None
        data = bytes(_view[:count])
        self._reads += 1
        self._bytes_left -= count
        if ancillary:
            _, kind, stamp = ancillary[0]
            if kind == SO_TIMESTAMPNS and len(stamp) == _STAMP_BYTES:
                seconds, nanoseconds = _unpack_stamp(stamp)
                stamp_ns = seconds * 1_000_000_000 + nanoseconds
                if now_ns - stamp_ns > self._lag_ns_max:
                    self._lag_ns_max = now_ns - stamp_ns
                return data, now_ns, stamp_ns
        self._unstamped += 1
        return data, now_ns, None

    def _on_readable(self) -> None:
        try:
            data, now_ns, stamp_ns = self._receive()
        except BlockingIOError:
            return
        frame = self._frame
        if frame is not None and stamp_ns is not None:
            # The usual case: the read is one chunk that holds one event like the one before, and no decoder
            # has anything to remember. What is left without its ends is the text if just they are gone.
            before, after, ends_bytes = frame
            line = _SIZE_LINES.get(len(data))
            if line is not None:
                text = data.removeprefix(line + before).removesuffix(after)
                if len(data) == len(line) + len(text) + ends_bytes and self._completion.take_text(text):
                    self._times.note_one(stamp_ns)
                    if self._completion.events >= self._events_stop or self._bytes_left < 0:
                        self._stop_at_limits(stamp_ns)
                    return
        if not data:
            self._on_closed(now_ns)
            return
        taken, at = (0, 0) if frame is None else self._take_frames(frame, data)
        is_exact, stamp_ns = stamp_ns is not None, stamp_ns or now_ns
        if at < len(data):
            self._take(data[at:], stamp_ns, is_exact=is_exact, taken=taken)
            return
        self._note_several(taken, stamp_ns, is_exact=is_exact)  # the decoders have nothing to remember of it
        if self._completion.events >= self._events_stop or self._bytes_left < 0:
            self._stop_at_limits(stamp_ns)

    def _take_frames(self, frame: Frame, data: bytes) -> tuple[int, int]:
        """Count the whole chunks like the one before that a read begins with; return where they end."""
        before, after, _ = frame
        after_size, take_text = len(after), self._completion.take_text
        taken = at = 0
        pieces = data.split(after)
        pieces.pop()  # what comes after the last
        for piece in pieces:
            size = len(piece) + after_size
            line = _SIZE_LINES.get(size)
            if line is None:
                break
            begin = line + before
            if not piece.startswith(begin) or not take_text(piece[len(begin) :]):
                break
            taken += 1
            at += size
        return taken, at

    def _note_several(self, contents: int, stamp_ns: int, *, is_exact: bool) -> None:
        """Note a read of several events, or one whose time is not known exactly."""
        uncertain_ns = 0 if is_exact and contents == 1 else self._uncertain_ns(stamp_ns)
        self._times.note(contents, stamp_ns, is_exact=is_exact, uncertain_ns=uncertain_ns)

    def _on_readable_tls(self) -> None:
        link = self._link
        assert link is not None
        assert link.tls is not None
        tls = link.tls
        try:
            data, now_ns, stamp_ns = self._receive()
        except BlockingIOError:
            return
        if not data:
            self._on_closed(now_ns)
            return
        data = tls.decrypt(data)
        if not link.send(tls.to_send()):  # what TLS itself has to say
            self._watch_reading(is_sent=False)
        if data:
            is_exact = stamp_ns is not None and not tls.has_more
            self._take(data, stamp_ns or now_ns, is_exact=is_exact)
        if self.row is None and tls.fault:
            self.fail("tls_failed", tls.fault, t_end_ns=now_ns)
        elif self.row is None and tls.is_ended:
            self._on_closed(now_ns)

    def _take(self, data: bytes, stamp_ns: int, *, is_exact: bool, taken: int = 0) -> None:
        """Take one read apart, of which ``taken`` events with content have been counted already."""
        try:
            contents, has_more_after = self._count(self._answer.feed(data))
            contents += taken
        except BadHttpError as error:
            self.fail("bad_http", str(error), t_end_ns=stamp_ns)
            return
        except EventTooLongError as error:
            self.fail("bad_event", str(error), t_end_ns=stamp_ns)
            return
        answer = self._answer
        if contents:
            is_last = not (has_more_after or answer.has_begun_more or self._events.is_mid_event)
            is_exact = is_exact and is_last and not answer.is_complete
            self._note_several(contents, stamp_ns, is_exact=is_exact)
        if answer.is_complete and self.row is None:
            self._end_whole(stamp_ns)
        if self.row is None:
            self._stop_at_limits(stamp_ns)
            self._frame = self._next_frame()

    def _next_frame(self) -> Frame | None:
        """Return what the next chunk begins and ends with, if only its text and size can be new in it."""
        if not (self._is_event_stream and self._answer.is_between_chunks and self._events.is_between_events):
            return None
        found = self._completion.frame
        if found is None:
            return None
        before, after = found[0], found[1] + b"\r\n"
        return before, after, len(before) + len(after)

    def _stop_at_limits(self, stamp_ns: int) -> None:
        """Leave where the workload wants it, or where an answer goes beyond all measure."""
        target, events = self._target, self._completion.events
        after = self.errand.hang_up_after_events
        if after is not None and events >= after:
            self.hang_up(f"after {events} events, as the workload wants", t_end_ns=stamp_ns)
        elif events >= target.events_max:
            self.fail("too_long", f"{events} events and no end (limits.events_max)", t_end_ns=stamp_ns)
        elif self._bytes_left < 0:
            detail = f"more than {target.bytes_max} bytes and no end (limits.bytes_max)"
            self.fail("too_long", detail, t_end_ns=stamp_ns)

    def hang_up(self, detail: str, *, t_end_ns: int | None = None) -> None:
        """Leave on purpose; who leaves before any content came has not been served."""
        self.fail("hung_up" if self._completion.events else "gave_up", detail, t_end_ns=t_end_ns)

    def _count(self, pieces: list[bytes]) -> tuple[int, bool]:
        """Return how many events with content these pieces hold, and whether another event comes after."""
        if not self._is_event_stream:
            if not self._is_wanted_stream():
                self._keep(pieces)
                return 0, False
            self._is_event_stream = True
        contents, has_content = 0, True
        for piece in pieces:
            for event in self._events.feed(piece):
                has_content = self._completion.take_event(event)
                contents += has_content
        return contents, not has_content

    def _keep(self, pieces: list[bytes]) -> None:
        """Keep a body that is no event stream; of one that nobody wants, only what shows what it is."""
        self._body += b"".join(pieces)
        if len(self._body) > BODY_BYTES_MAX:
            raise BadHttpError(f"an answer of more than {BODY_BYTES_MAX} bytes")
        head = self._answer.head
        if head is not None and len(self._body) > _UNWANTED_BYTES_MAX:
            kind, detail = self._judge_head()
            if kind is not None:
                self.fail(kind, detail)

    def _is_wanted_stream(self) -> bool:
        return self._answer.head is not None and self._target.is_streamed and self._judge_head()[0] is None

    def _judge_head(self) -> tuple[str | None, str]:
        assert self._answer.head is not None
        shown = bytes(self._body[:DETAIL_CHARS_MAX]).decode("utf-8", "replace")
        return judge_head(self._answer.head, is_streamed=self._target.is_streamed, shown=shown)

    def _uncertain_ns(self, stamp_ns: int) -> int:
        """Return how much earlier than its stamp something in this read may have come."""
        assert self._t_sent_ns is not None
        return max(0, stamp_ns - max(self._polls.looked_before_ns, self._t_sent_ns))

    def _on_closed(self, now_ns: int) -> None:
        tls = None if self._link is None else self._link.tls
        if tls is not None and not tls.is_ended and not self._answer.is_complete:
            cause = "the connection was closed without TLS saying so"
        else:
            cause = "the connection was closed"
            if self._answer.end_of_connection():
                self._end_whole(now_ns)
                return
        if self._answer.head is None:
            self.fail("closed", "the server closed the connection without an answer", t_end_ns=now_ns)
        else:
            self.fail("truncated", f"{cause} after {self._completion.events} events", t_end_ns=now_ns)

    def _end_whole(self, t_end_ns: int) -> None:
        """Judge an answer that is whole as HTTP has it."""
        kind, detail = self._judge_head()
        if kind is None and not self._is_event_stream and self._completion.take_whole(bytes(self._body)):
            self._times.note_one(t_end_ns)
        if kind is None:
            kind, detail = self._completion.judge_whole(
                is_streamed=self._is_event_stream,
                output_tokens=self.errand.output_tokens,
                sends_done=self._target.sends_done,
            )
        self._finish(kind, detail, t_end_ns)

    def check_deadlines(self, now_s: float) -> None:
        """Give up what has taken too long."""
        target, taken_s = self._target, now_s - self._begun_s
        if self._is_connecting and taken_s >= min(target.connect_timeout_s, target.timeout_s):
            if self._connect_ms is None:
                self.fail("connect_timeout", f"no connection within {target.connect_timeout_s:g} s")
            else:
                detail = (
                    f"connected, but no TLS handshake within {target.connect_timeout_s:g} s; is it http://?"
                )
                self.fail("tls_failed", detail)
        elif now_s >= self._deadline_s:
            self.fail("timeout", f"no end within {target.timeout_s:g} s")
        elif not self._reads and taken_s >= target.first_byte_timeout_s:
            self.fail("first_byte_timeout", f"no byte within {target.first_byte_timeout_s:g} s")

    def _fail_with(self, error: OSError) -> None:
        detail = f"{error.strerror or error} after {self._completion.events} events"
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM):
            self.fail("client_limit", f"this machine cannot open one more connection: {error.strerror}")
        elif error.errno == errno.ECONNREFUSED:
            self.fail("refused", detail)
        elif self._is_connecting and self._connect_ms is not None:
            self.fail("tls_failed", f"{error.strerror or error} in the TLS handshake")
        elif self._is_connecting or self._t_sent_ns is None:
            self.fail("connect_failed", detail)
        else:
            self.fail("reset", detail)

    def fail(self, kind: str, detail: str, *, t_end_ns: int | None = None) -> None:
        """End the exchange as failed."""
        if self.row is None:
            self._finish(kind, detail, t_end_ns or time.time_ns())

    def _finish(self, kind: str | None, detail: str, t_end_ns: int) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._polls.forget(link.fd)
            is_sound = link.tls is None or not (link.tls.is_ended or link.tls.fault)
            may_stay = kind is None and is_sound and self._answer.keeps_alive
            self._connections.give_back(
                link
            ) if may_stay and self._target.reuses_connections else link.close()
        self.row = self._make_row(kind, detail, t_end_ns)
        self._on_end(self)

    def _make_row(self, kind: str | None, detail: str, t_end_ns: int) -> Request:
        head, completion, times = self._answer.head, self._completion, self._times
        return Request(
            index=self.errand.index,
            worker=self.errand.worker,
            endpoint=self._target.url,
            t_intended_ns=self.errand.t_intended_ns,
            t_sent_ns=self._t_sent_ns,
            t_first_ns=times.t_first_ns,
            t_last_ns=times.t_last_ns,
            t_end_ns=t_end_ns,
            connect_ms=self._connect_ms,
            tls_ms=self._tls_ms,
            status=None if head is None else head.status,
            error=kind,
            error_detail=_recordable(detail[:DETAIL_CHARS_MAX]),
            retry_after_s=retry_after_s(head),
            is_hung_up=kind == "hung_up",
            session=self.errand.session,
            turn=self.errand.turn,
            endpoint_name=self._target.name,
            endpoint_planned=self.errand.endpoint,
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
            gaps_us=tuple(times.gaps_us),
            gaps_censored=times.gaps_censored,
            reads=self._reads,
            reads_unstamped=self._unstamped,
            reads_coalesced=times.coalesced,
            lag_ms_max=self._lag_ns_max / 1e6,
            first_uncertain_ms=times.first_uncertain_ns / 1e6,
            last_uncertain_ms=times.last_uncertain_ns / 1e6,
        )


def _recordable(text: str) -> str:
    """Return a server's words without lone surrogates, which JSON can name and no file can hold."""
    return text.encode("utf-8", "replace").decode()

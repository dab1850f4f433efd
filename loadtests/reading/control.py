"""Positive controls of the stream reader: answers that are broken on purpose, sent over a real socket.

Each goes from a listener in this process through the kernel to the very reader that the load uses, before the
load begins. A detector that does not find what was planted proves nothing when it later finds nothing.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass, replace
from typing import Any

import gevent
import gevent.event
import gevent.socket

from loadtests.reading.connections import Connections, Target, keep_stamping
from loadtests.reading.poll_clock import PollClock
from loadtests.reading.reader import Errand, Exchange
from probes.request import Request

_TIMEOUT_S = 5.0
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_BODY = json.dumps({"messages": []}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """An answer and what the reader has to make of it."""

    name: str
    wanted: str | None  # error kind; None: the answer is good
    parts: tuple[bytes, ...]
    is_reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResult:
    """What came of one planted answer."""

    name: str
    wanted: str | None
    found: str | None
    is_stamped: bool  # whether the kernel stamped every read

    @property
    def is_proven(self) -> bool:
        """Whether the reader found just what was planted."""
        return self.wanted == self.found


def _chunk(document: object) -> bytes:
    data = document if isinstance(document, bytes) else b"data: " + json.dumps(document).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _delta(text: str, finish_reason: str | None = None) -> bytes:
    return _chunk({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}]})


def _usage(tokens: int) -> bytes:
    return _chunk({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}})


_DONE, _END = _chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"
_TOKENS = (_HEAD, _delta("one"), _delta(" two"), _delta(" three", "stop"))

PLANTED = (
    Planted(name="good", wanted=None, parts=(*_TOKENS, _usage(3), _DONE, _END)),
    Planted(name="cut", wanted="no_done", parts=(*_TOKENS[:3], _END)),
    Planted(name="truncated", wanted="truncated", parts=_TOKENS[:3]),
    Planted(name="reset", wanted="reset", parts=_TOKENS[:3], is_reset=True),
    Planted(name="doubled", wanted="usage_mismatch", parts=(*_TOKENS, *_TOKENS[2:], _usage(3), _DONE, _END)),
    Planted(name="garbled", wanted="bad_event", parts=(*_TOKENS[:2], _chunk(b"data: {\n\n"), _DONE, _END)),
    Planted(
        name="html",
        wanted="content_type",
        parts=(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",),
    ),
    Planted(
        name="error",
        wanted="http_5xx",
        parts=(b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno",),
    ),
)


def run_controls(target: Target) -> list[ControlResult]:
    """Send every planted answer through the reader; ``target`` gives what does not matter here."""
    with keep_stamping():
        return [_run_control(_as_seen(planted, target), target) for planted in PLANTED]


def _as_seen(planted: Planted, target: Target) -> Planted:
    """Name the cut as the reader has to name it where streams end without [DONE]."""
    is_other = planted.wanted == "no_done" and not target.sends_done
    return replace(planted, wanted="no_finish_reason") if is_other else planted


def _run_control(planted: Planted, target: Target) -> ControlResult:
    listener = gevent.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    server = gevent.spawn(_serve, listener, planted)
    local = replace(
        target,
        url="control",
        family=socket.AF_INET,
        address=listener.getsockname(),
        head_fields="",
        is_streamed=True,
        tls=None,  # what is proven is what comes after it
        timeout_s=_TIMEOUT_S,
    )
    polls = PollClock()
    connections = Connections(local, polls)
    try:
        row = exchange_once(connections)
    finally:
        connections.close()
        polls.close()
        server.kill()
        listener.close()
    is_stamped = bool(row.reads) and not row.reads_unstamped
    return ControlResult(
        name=planted.name, wanted=planted.wanted, found=row.error, is_stamped=is_stamped or planted.is_reset
    )


def exchange_once(connections: Connections) -> Request:
    """Make one request from a greenlet, and return its row."""
    ended = gevent.event.Event()
    errand = Errand(
        index=0, worker=0, t_intended_ns=time.time_ns(), body=_BODY, output_tokens=3, request_id="control"
    )
    exchange = Exchange(errand, connections, lambda _: ended.set())
    exchange.begin()
    if not ended.wait(_TIMEOUT_S):
        exchange.fail("timeout", "the control did not end")
    assert exchange.row is not None
    return exchange.row


def _serve(listener: Any, planted: Planted) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        while not received.endswith(_BODY):
            received += connection.recv(65536)
        for part in planted.parts:
            connection.sendall(part)
            gevent.sleep(0.002)
        if planted.is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

"""Hostile servers over real sockets: each costs bounded time and memory and ends as one named error."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from loadtests.reading.control import PLANTED
from probes.child import end_child, python_module, start_child
from tests.loadtests.endpoints import raw_server

GROWN_KIB_MAX = 8 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\n"
CHUNKED = EVENTS + b"Transfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" x"},"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
Behave = Callable[[socket.socket], None]


def says(*parts: bytes, closes: bool = True) -> Behave:
    """Return a server that sends this, and then closes or waits."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        for part in parts:
            connection.sendall(part)
        if not closes:
            while connection.recv(65536):
                pass

    return behave


def repeats(begin: bytes, part: bytes) -> Behave:
    """Return a server that sends the one, and then the other for as long as somebody reads."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        block = part * max(1, 65536 // len(part))
        while True:
            connection.sendall(block)

    return behave


def drips(data: bytes) -> Behave:
    """Return a server that sends a byte every 50 ms."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        for position in itertools.count():
            connection.sendall(data[position % len(data) :][:1])
            time.sleep(0.05)

    return behave


def floods_with_distinct_extensions(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(CHUNKED)
    for number in itertools.count():
        connection.sendall(b"".join(b"3;a=%d%b\r\n:x\n\r\n" % (number + n, b"e" * 900) for n in range(64)))


def resets_in_the_head(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(OK + b"Content-")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def closes_half(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(CHUNKED + CHUNK)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


def sized(length: bytes, body: bytes = EVENT) -> bytes:
    return EVENTS + b"Content-Length: %b\r\n\r\n" % length + body


GOOD = b"".join(PLANTED[0].parts)
# What the server does, and what the request then is.
HOSTILE: dict[str, tuple[Behave, str]] = {
    "line-without-end": (repeats(CHUNKED + b"fffffff\r\n", b"x"), "bad_event"),
    "stream-without-end": (repeats(CHUNKED, CHUNK), "too_long"),
    "comments-without-end": (repeats(EVENTS + b"\r\n", b": keep-alive\n\n"), "too_long"),
    "empty-events-without-end": (repeats(EVENTS + b"\r\n", b"data:" + b" " * 500 + b"\n\n"), "too_long"),
    "slow-head": (drips(OK + b"X: y\r\n" * 1000), "timeout"),
    "slow-body": (drips(CHUNKED), "timeout"),
    "header-without-end": (repeats(OK + b"X: ", b"y"), "bad_http"),
    "headers-without-end": (repeats(OK, b"X: y\r\n"), "bad_http"),
    "interim-heads-without-end": (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "bad_http"),
    "switches-protocols": (says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", closes=False), "bad_http"),
    "garbage-chunk-size": (says(CHUNKED + b"xyz\r\n"), "bad_http"),
    "negative-chunk-size": (says(CHUNKED + b"-5\r\nabcde\r\n"), "bad_http"),
    "huge-chunk-size": (says(CHUNKED + b"f" * 30 + b"\r\n"), "bad_http"),
    "large-chunk-then-silence": (says(CHUNKED + b"fffffffffff\r\n" + EVENT, closes=False), "timeout"),
    "long-chunk-extension": (repeats(CHUNKED + b"5;", b"e"), "bad_http"),
    "extension-flood": (floods_with_distinct_extensions, "too_long"),
    "chunk-of-wrong-length": (says(CHUNKED + b"3\r\n" + EVENT), "bad_http"),
    "trailers-without-end": (repeats(CHUNKED + CHUNK + b"0\r\n", b"X: y\r\n"), "bad_http"),
    "never-closes": (says(EVENTS + b"\r\n" + EVENT, closes=False), "timeout"),
    "negative-length": (says(sized(b"-1")), "bad_http"),
    "two-lengths": (says(EVENTS + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), "bad_http"),
    "length-that-is-no-length": (says(sized(b"9" * 40)), "bad_http"),
    "length-too-large": (says(sized(b"9" * 12)), "truncated"),
    "length-and-chunks": (
        says(EVENTS + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "bad_http",
    ),
    "head-without-returns": (
        says(b"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n" + EVENT, closes=False),
        "bad_http",
    ),
    "smuggled-line": (says(EVENTS + b"X: a\nContent-Length: 0\r\n\r\n"), "bad_http"),
    "folded-line": (says(EVENTS + b"X: a\r\n b\r\n\r\n"), "bad_http"),
    "space-before-colon": (says(EVENTS + b"Content-Length : 5\r\n\r\n"), "bad_http"),
    "two-answers": (says(GOOD + GOOD, closes=False), "none"),
    "gzip": (
        says(EVENTS + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(EVENT * 9)),
        "content_type",
    ),
    "gzip-bomb": (
        repeats(EVENTS + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(bytes(1 << 20))),
        "content_type",
    ),
    "binary": (says(EVENTS + b"\r\n" + bytes(range(256)) * 64), "no_done"),
    "endless-page": (repeats(OK + b"Content-Type: text/html\r\n\r\n", b"<p>"), "content_type"),
    "endless-error": (repeats(b"HTTP/1.1 500 No\r\n\r\n", b"oops "), "http_5xx"),
    "redirect-loop": (
        says(b"HTTP/1.1 302 Found\r\nLocation: /v1/chat/completions\r\nContent-Length: 0\r\n\r\n"),
        "redirect",
    ),
    "reset-in-the-head": (resets_in_the_head, "reset"),
    "half-close": (closes_half, "truncated"),
    "tls-alert": (says(b"\x15\x03\x01\x00\x02\x02\x28"), "bad_http"),
    "nested-json": (says(EVENTS + b"\r\ndata: " + b"[" * 500_000 + b"\n\n"), "bad_event"),
}


@pytest.fixture(scope="module")
def hostile_client() -> Iterator[subprocess.Popen[str]]:
    child = start_child(python_module("tests.loadtests.hostile_client"))
    yield child
    with contextlib.suppress(OSError):
        end_child(child)
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_costs_bounded_time_and_memory_and_is_named(
    hostile_client: subprocess.Popen[str], name: str
) -> None:
    behave, kind = HOSTILE[name]
    timeout_s = 1.0 if kind == "timeout" else 30.0  # what ends for another reason has to end by that
    assert hostile_client.stdin is not None
    assert hostile_client.stdout is not None
    with raw_server(behave) as port:
        hostile_client.stdin.write(f"{name} {port} {timeout_s}\n")
        hostile_client.stdin.flush()
        found = json.loads(hostile_client.stdout.readline())

    assert [str(error or "none") for error in found["errors"]] == [kind], found["detail"]
    assert found["took_s"] < timeout_s + 3
    assert found["grown_kib"] < GROWN_KIB_MAX

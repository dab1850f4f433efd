"""The reader as a client of tests: many requests in this thread's hub, and their rows."""

from __future__ import annotations

import json
import socket
import time

import gevent

from loadtests.reading.connections import Connections, Target
from loadtests.reading.poll_clock import PollClock
from loadtests.reading.reader import Errand, Exchange
from probes.request import Request

TOKENS = 12


def target(port: int, **changes: object) -> Target:
    """Return a target on loopback, with short time-outs."""
    fields: dict[str, object] = {
        "url": f"http://127.0.0.1:{port}",
        "host": f"127.0.0.1:{port}",
        "family": socket.AF_INET,
        "address": ("127.0.0.1", port),
        "path": "/v1/chat/completions",
        "head_fields": "",
        "is_streamed": True,
        "timeout_s": 5.0,
        "connect_timeout_s": 2.0,
        "first_byte_timeout_s": 5.0,
        "reuses_connections": True,
    }
    return Target(**fields | changes)  # type: ignore[arg-type]


class Client:
    """Makes requests with the reader, many at a time, in this thread's hub."""

    def __init__(self, polls: PollClock) -> None:
        self.polls = polls
        self.connections = Connections(target(0), polls)
        self.rows: list[Request] = []

    def to(self, port: int, **changes: object) -> Client:
        """Send what comes next to this port."""
        self.connections.target = target(port, **changes)
        return self

    def run(
        self, count: int = 1, *, gap_s: float = 0.0, timeout_s: float = 10.0, size: int = 0
    ) -> list[Request]:
        """Make so many requests; return their rows, each of which there has to be exactly once."""
        self.rows, exchanges = [], []
        for index in range(count):
            exchanges.append(Exchange(errand(index, size), self.connections, self.take))
            exchanges[-1].begin()
            gevent.sleep(gap_s)
        deadline = time.monotonic() + timeout_s
        while len(self.rows) < count and time.monotonic() < deadline:
            gevent.sleep(0.01)
            for exchange in exchanges:
                exchange.check_deadlines(time.monotonic())
        return sorted(self.rows, key=lambda row: row.index)

    def take(self, exchange: Exchange) -> None:
        """Take the row of an exchange that has ended."""
        assert exchange.row is not None
        self.rows.append(exchange.row)


def errand(index: int, size: int = 0) -> Errand:
    """Return a request for ``TOKENS`` tokens."""
    messages = [{"role": "user", "content": f"hello {index}" + " x" * size}]
    body = {
        "messages": messages,
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Errand(
        index=index,
        worker=0,
        t_intended_ns=time.time_ns(),
        body=json.dumps(body).encode(),
        output_tokens=TOKENS,
        request_id=str(index),
    )

"""Real endpoints for tests: the built-in one as a process, and sockets that misbehave in other ways."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from probes.child import end_child, python_module, start_child


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEndpoint:
    """An endpoint process and where it listens."""

    child: subprocess.Popen[str]
    port: int
    url: str


@contextlib.contextmanager
def endpoint(*options: str) -> Iterator[RunningEndpoint]:
    """Run the built-in endpoint for as long as the block."""
    child = start_child(python_module("loadtests.endpoint", "--lifeline", *options))
    try:
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], 20)
        assert ready, "the endpoint did not start"
        said = json.loads(child.stdout.readline())
        assert said["pid"] == child.pid
        yield RunningEndpoint(child=child, port=said["port"], url=f"http://127.0.0.1:{said['port']}")
    finally:
        end_child(child)
        assert child.stdout is not None
        child.stdout.close()


def ask(port: int, *, method: str = "POST", path: str = "/v1/chat/completions", **body: object):  # type: ignore[no-untyped-def]
    """Send one request with the standard library's client; return status, header fields and body."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request(method, path, body=json.dumps(body) if method == "POST" else None)
        reply = link.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        link.close()


@contextlib.contextmanager
def raw_server(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on loopback and hand every connection to ``behave`` in a thread; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve_one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            behave(connection)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(20)
                threads.append(threading.Thread(target=serve_one, args=(connection,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(5)

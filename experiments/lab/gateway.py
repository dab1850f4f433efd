"""The lab's gateway: a small layer-7 load balancer in front of the replicas.

It routes each request to the replica with the fewest in flight and passes streams through as they arrive. A
request is tried again elsewhere only while nothing of it was sent, that is, when the connection was refused:
an answer that has begun and then ends is the client's to see. What it knows of a replica comes from its own
health checks and from failed requests, never from the supervisor beside it: it has to find out for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import h11

from experiments.lab.gateway_trouble import Reset, Trouble

HOST = "127.0.0.1"
CHECK_EVERY_S = 0.5
CHECK_TIMEOUT_S = 1.0
CHECKS_FAILED_MAX = 2  # consecutive; then the replica gets no more requests
CONNECT_TIMEOUT_S = 1.0
IDLE_TIMEOUT_S = 120.0  # of a client between requests, of a replica between two pieces of an answer
BODY_BYTES_MAX = 8 * 1024 * 1024
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade"))

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Backend:
    """A replica as the gateway sees it."""

    name: str
    port: int
    is_routed: bool = False  # gets requests; starts with the first good health check
    is_draining: bool = False  # finishes what it has and gets nothing new
    in_flight: int = 0
    checks_failed: int = 0
    failing_since: float | None = None  # of the loop's clock: when the checks that fail began to


class ClientGone(Exception):
    """The client closed its connection: nobody is left to answer."""


class Peer:
    """One HTTP/1.1 connection, ours to a replica or a client's to us."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        role: type[h11.CLIENT] | type[h11.SERVER],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.http = h11.Connection(our_role=role, max_incomplete_event_size=64 * 1024)

    async def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event; end of file inside a message is a ``RemoteProtocolError``."""
        while True:
            event = self.http.next_event()
            if isinstance(event, h11.Event) or event is h11.PAUSED:
                return event
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                self.http.receive_data(await self._reader.read(65536))

    async def send(self, *events: h11.Event) -> None:
        """Send events as one write."""
        self._writer.write(b"".join(self.http.send(event) or b"" for event in events))
        await self._writer.drain()

    async def answer_text(self, text: str) -> None:
        """Send a page in plain text."""
        body = text.encode()
        headers = [("content-type", "text/plain; version=0.0.4"), ("content-length", str(len(body)))]
        await self.send(
            h11.Response(status_code=200, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        )

    async def answer(self, status: int, message: str) -> None:
        """Send a whole small answer of our own, in the form of an OpenAI error."""
        body = json.dumps({"error": {"message": message, "type": "gateway", "code": status}}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        await self.send(
            h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        )

    def reset(self) -> None:
        """Cut the connection as a machine that lost its memory does; data under way is lost."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; data already sent still arrives."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Gateway:
    """Listens on loopback and spreads requests over the backends that its checks found healthy."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.port = 0
        self.trouble: Trouble | None = None  # that somebody asked for
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int) -> None:
        """Begin to listen.

        Raises:
            OSError: the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, HOST, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def register(self, name: str, port: int) -> None:
        """Add a replica, or its new address; the next health check decides whether it gets requests."""
        self.backends[name] = Backend(name=name, port=port)

    async def check_forever(self) -> None:
        """Check every backend, twice a second."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_EVERY_S)

    async def check(self) -> None:
        """Ask every backend for its health, and route by what they say."""
        await asyncio.gather(*(self._check(backend) for backend in [*self.backends.values()]))

    async def _check(self, backend: Backend) -> None:
        if await is_healthy(backend.port, timeout_s=CHECK_TIMEOUT_S):
            backend.checks_failed, backend.is_routed, backend.failing_since = 0, True, None
            return
        backend.checks_failed += 1
        backend.failing_since = backend.failing_since or asyncio.get_running_loop().time()
        if backend.checks_failed >= CHECKS_FAILED_MAX:
            backend.is_routed = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = Peer(reader, writer, h11.SERVER)
        try:
            while await self._serve_one(client):
                client.http.start_next_cycle()
        except Reset:
            client.reset()
        except (ClientGone, h11.RemoteProtocolError, OSError, TimeoutError):
            pass  # the client left, or is none of ours to talk to
        finally:
            self._tasks.discard(task)
            await client.close()

    async def _serve_one(self, client: Peer) -> bool:
        """Answer one request; return whether the connection can carry another."""
        request = await client.next_event()
        if not isinstance(request, h11.Request):
            return False
        body = bytearray()
        while isinstance(event := await client.next_event(), h11.Data):
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                await client.answer(413, f"a request body may have {BODY_BYTES_MAX} bytes")
                return False
        if not isinstance(event, h11.EndOfMessage):
            return False
        if request.method == b"GET" and request.target == b"/health":
            routed = sum(backend.is_routed for backend in self.backends.values())
            await client.answer(200 if routed else 503, f"{routed} of {len(self.backends)} replicas serve")
        elif request.method == b"GET" and request.target == b"/metrics":
            await client.answer_text(self.metrics_page())
        else:
            await self._take_or_trouble(client, request, bytes(body))
        return client.http.our_state is h11.DONE and client.http.their_state is h11.DONE

    def metrics_page(self) -> str:
        """Return what the gateway knows of its replicas, in Prometheus' form."""
        backends = self.backends.values()
        serving = sum(backend.is_routed and not backend.is_draining for backend in backends)
        return (
            "# TYPE overproof_lab_replicas_serving gauge\n"
            f"overproof_lab_replicas_serving {serving}\n"
            "# TYPE overproof_lab_requests_in_flight gauge\n"
            f"overproof_lab_requests_in_flight {sum(backend.in_flight for backend in backends)}\n"
        )

    def set_trouble(self, trouble: Trouble | None) -> None:
        """Begin with this trouble instead of what there was; None: end it, also for whom it holds now."""
        if self.trouble is not None:
            self.trouble.over.set()
        self.trouble = trouble

    def current_trouble(self) -> Trouble | None:
        """Return the trouble that somebody asked for, until its time is over."""
        if self.trouble is not None and asyncio.get_running_loop().time() >= self.trouble.ends_at:
            self.trouble = None
        return self.trouble

    async def _take_or_trouble(self, client: Peer, request: h11.Request, body: bytes) -> None:
        trouble = self.current_trouble()
        if trouble is None or not trouble.meets_next():
            await self._forward(client, request, body)
        elif trouble.kind == "error":
            await client.answer(trouble.status, "trouble on purpose")
        elif trouble.kind == "black-hole":
            await trouble.swallow()
            raise ClientGone
        elif trouble.kind == "reset":
            await self._forward(client, request, body, reset_after=trouble.after_events)
        else:
            await asyncio.sleep(trouble.latency_s)
            await self._forward(client, request, body)

    async def _forward(
        self, client: Peer, request: h11.Request, body: bytes, *, reset_after: int | None = None
    ) -> None:
        tried: set[str] = set()
        while (backend := self._pick(tried)) is not None:
            tried.add(backend.name)
            backend.in_flight += 1
            try:
                replica = await _connect(backend.port, timeout_s=CONNECT_TIMEOUT_S)
                if replica is not None:
                    await self._relay(client, backend, replica, request, body, reset_after)
                    return
                backend.is_routed = False  # refused: nothing was sent, so another may have it
            finally:
                backend.in_flight -= 1
        await client.answer(503, "no replica serves")

    def _pick(self, tried: set[str]) -> Backend | None:
        """Choose the routed backend with the fewest requests in flight; equals take turns."""
        routed = [
            b for b in self.backends.values() if b.is_routed and not b.is_draining and b.name not in tried
        ]
        if not routed:
            return None
        self._turn += 1
        turned = [routed[(self._turn + i) % len(routed)] for i in range(len(routed))]
        return min(turned, key=lambda backend: backend.in_flight)

    async def _relay(
        self,
        client: Peer,
        backend: Backend,
        replica: Peer,
        request: h11.Request,
        body: bytes,
        reset_after: int | None,
    ) -> None:
        """Send the request to the replica and its answer, piece by piece, to the client."""
        has_begun, sent = False, 0
        try:
            await replica.send(*_upstream_request(request, body))
            async for event in _answer_of(replica):
                try:
                    await client.send(event)
                except OSError as error:
                    raise ClientGone from error
                has_begun, sent = True, sent + 1
                if reset_after is not None and sent > reset_after:  # the head is the first piece
                    raise Reset
        except (h11.RemoteProtocolError, OSError, TimeoutError) as error:
            backend.is_routed = False  # until a health check says otherwise
            if has_begun:  # the client must see the cut: it cannot be repaired here
                raise ClientGone from error
            await client.answer(502, f"{backend.name} failed before it answered: {type(error).__name__}")
        finally:
            await replica.close()


async def _connect(port: int, *, timeout_s: float) -> Peer | None:
    """Connect to a replica; None: it could not be reached, and nothing was sent."""
    try:
        async with asyncio.timeout(timeout_s):
            return Peer(*await asyncio.open_connection(HOST, port), h11.CLIENT)
    except OSError:  # includes TimeoutError
        return None


def _upstream_request(request: h11.Request, body: bytes) -> list[h11.Event]:
    headers = [(n, v) for n, v in _end_to_end(request.headers) if n not in (b"content-length", b"expect")]
    headers += [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    head = h11.Request(method=request.method, target=request.target, headers=headers)
    return [head, h11.Data(data=body), h11.EndOfMessage()]


async def _answer_of(replica: Peer) -> AsyncIterator[h11.Event]:
    """Yield the replica's answer as events that can be sent on."""
    while True:
        event = await replica.next_event()
        if isinstance(event, h11.Response):
            yield h11.Response(
                status_code=event.status_code, headers=_end_to_end(event.headers), reason=event.reason
            )
        elif isinstance(event, h11.Data):
            yield h11.Data(data=event.data)
        elif isinstance(event, h11.EndOfMessage):
            yield h11.EndOfMessage()
            return
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("closed without an answer")


def _end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP]


async def is_healthy(port: int, *, timeout_s: float) -> bool:
    """Ask a replica for its health; anything but a 200 in time is no."""
    replica = await _connect(port, timeout_s=timeout_s)
    if replica is None:
        return False
    try:
        async with asyncio.timeout(timeout_s):
            headers = [("host", HOST), ("connection", "close")]
            await replica.send(
                h11.Request(method="GET", target="/health", headers=headers), h11.EndOfMessage()
            )
            event = await replica.next_event()
            return isinstance(event, h11.Response) and event.status_code == 200
    except (h11.RemoteProtocolError, OSError, TimeoutError):
        return False
    finally:
        await replica.close()

"""The gateway, against real sockets that behave as each test needs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from experiments.lab.gateway import Gateway, is_healthy

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-replica: r0\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
    b"content-length: 2\r\n\r\n{}"
)


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test to its end on a loop of its own."""

    @functools.wraps(test)
    def run(**given: object) -> None:
        async def whole() -> None:
            await test(**given)

        asyncio.run(whole())

    return run


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class Upstream:
    """A replica made of a socket: what it was sent, and what it does about it."""

    serve: Serve
    asked: list[bytes] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self.server.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        if head.startswith(b"POST"):
            await reader.readexactly(2)
        try:
            await self.serve(reader, writer)
        finally:
            writer.close()


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + chunk(b"data: one\n\n") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


@contextlib.asynccontextmanager
async def gateway_before(*serves: Serve) -> AsyncIterator[tuple[Gateway, list[Upstream]]]:
    """A gateway that listens, in front of one upstream for each behaviour."""
    gateway, upstreams = Gateway(), [Upstream(serve) for serve in serves]
    await gateway.start(0)
    try:
        for i, upstream in enumerate(upstreams):
            gateway.register(f"r{i}", await upstream.start())
            gateway.backends[f"r{i}"].is_routed = True
        yield gateway, upstreams
    finally:
        await gateway.close()
        for upstream in upstreams:
            await upstream.stop()


async def ask(gateway: Gateway, request: bytes = ASK) -> bytes:
    """Send one request and return all bytes of the answer until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@on_a_loop
async def test_a_stream_arrives_piece_by_piece_with_its_headers_untouched() -> None:
    may_end = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: one\n\n"))
        await writer.drain()
        await may_end.wait()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async with gateway_before(slow) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(ASK)
        async with asyncio.timeout(5):
            first = await reader.readuntil(b"data: one\n\n\r\n")
            may_end.set()
            rest = await reader.readuntil(b"0\r\n\r\n")
        writer.close()

    assert b"x-replica: r0\r\n" in first
    assert b"content-type: text/event-stream\r\n" in first
    assert rest.startswith(chunk(b"data: [DONE]\n\n"))


@on_a_loop
async def test_a_refused_connection_is_tried_elsewhere_and_gets_no_more_requests() -> None:
    async with gateway_before(answer_ok) as (gateway, (good,)):
        async with await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0) as closed:
            dead_port = closed.sockets[0].getsockname()[1]
        gateway.register("dead", dead_port)
        gateway.backends["dead"].is_routed = True

        answers = [await ask(gateway) for _ in range(3)]

    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert len(good.asked) == 3
    assert not gateway.backends["dead"].is_routed
    assert gateway.backends["dead"].in_flight == gateway.backends["r0"].in_flight == 0


@on_a_loop
async def test_a_replica_that_dies_in_the_middle_leaves_a_stream_without_its_end() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: one\n\n"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with gateway_before(die) as (gateway, (dying,)):
        answer = await ask(gateway)

    assert b"data: one" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert len(dying.asked) == 1
    assert not gateway.backends["r0"].is_routed


@on_a_loop
async def test_a_request_that_was_sent_is_never_sent_again_though_nothing_came_back() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with gateway_before(die, die) as (gateway, upstreams):
        answer = await ask(gateway)

    assert answer.startswith(b"HTTP/1.1 502")
    assert sum(len(upstream.asked) for upstream in upstreams) == 1


@on_a_loop
async def test_without_a_replica_the_answer_is_503() -> None:
    async with gateway_before() as (gateway, _):
        answer, health = await ask(gateway), await ask(gateway, b"GET /health HTTP/1.1\r\nhost: g\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 503")
    assert health.startswith(b"HTTP/1.1 503")


@on_a_loop
async def test_a_request_goes_where_fewest_are_in_flight() -> None:
    may_end = asyncio.Event()

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_end.wait()
        await answer_ok(reader, writer)

    async with gateway_before(busy, answer_ok) as (gateway, (slow, fast)):
        gateway.backends["r0"].in_flight, gateway.backends["r1"].in_flight = 0, 1
        waiting = asyncio.create_task(ask(gateway))
        while not slow.asked:
            await asyncio.sleep(0.01)
        gateway.backends["r1"].in_flight = 0
        for _ in range(4):
            await ask(gateway)
        may_end.set()
        await waiting

    assert (len(slow.asked), len(fast.asked)) == (1, 4)


@on_a_loop
async def test_several_requests_use_one_connection() -> None:
    async with gateway_before(answer_ok) as (gateway, (upstream,)):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        async with asyncio.timeout(5):
            for _ in range(3):
                writer.write(ASK)
                await reader.readuntil(b"0\r\n\r\n")
        writer.close()

    assert len(upstream.asked) == 3


@on_a_loop
async def test_an_error_answer_passes_with_its_length() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\nretry-after: 1\r\n\r\nbusy")
        await writer.drain()

    async with gateway_before(refuse) as (gateway, _):
        answer = await ask(gateway)

    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"retry-after: 1\r\n" in answer
    assert answer.endswith(b"\r\n\r\nbusy")
    assert gateway.backends["r0"].is_routed


@on_a_loop
async def test_what_is_no_http_gets_no_answer_and_harms_nobody() -> None:
    async with gateway_before(answer_ok) as (gateway, _):
        garbage = await ask(gateway, b"\x00\x01\x02 nonsense\r\n\r\n")
        good = await ask(gateway)

    assert garbage == b""
    assert good.startswith(b"HTTP/1.1 200")


@on_a_loop
async def test_a_body_without_bound_is_refused() -> None:
    async with gateway_before(answer_ok) as (gateway, (upstream,)):
        size = 9 * 1024 * 1024
        head = b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\n\r\n" % size
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head + b"x" * size)
        async with asyncio.timeout(10):
            status = await reader.readline()
        writer.transport.abort()

    assert status.startswith(b"HTTP/1.1 413")
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("status", "healthy"), [(b"200 OK", True), (b"503 Loading", False), (b"nonsense", False)]
)
@on_a_loop
async def test_only_a_200_is_healthy(status: bytes, healthy: bool) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    upstream = Upstream(say)
    found = await is_healthy(await upstream.start(), timeout_s=2)
    await upstream.stop()

    assert found is healthy


@on_a_loop
async def test_a_replica_that_says_nothing_is_not_healthy() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)

    upstream = Upstream(hang)
    found = await is_healthy(await upstream.start(), timeout_s=0.2)
    await upstream.stop()

    assert not found


@on_a_loop
async def test_two_failed_checks_take_a_replica_out_and_a_good_one_brings_it_back() -> None:
    is_well = False

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % (200 if is_well else 500))
        await writer.drain()

    async with gateway_before(say) as (gateway, _):
        backend = gateway.backends["r0"]
        seen = []
        for _ in range(2):
            await gateway.check()
            seen.append(backend.is_routed)
        is_well = True
        await gateway.check()

    assert [*seen, backend.is_routed] == [True, False, True]

"""The reader over real sockets: what it calls each way of failing, and whose time it reports."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from loadtests.reading.control import PLANTED, run_controls
from loadtests.reading.poll_clock import TICK_S, PollClock
from loadtests.reading.reader import Exchange
from probes.request import Request
from probes.slo import percentile
from tests.loadtests.clients import TOKENS, Client, errand, target
from tests.loadtests.endpoints import endpoint, raw_server


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(PollClock())
    yield client
    client.connections.close()
    client.polls.close()


def test_every_planted_answer_is_recognised_and_stamped_by_the_kernel() -> None:
    results = run_controls(target(1))

    assert {result.name: result.found for result in results} == {item.name: item.wanted for item in PLANTED}
    assert all(result.is_proven for result in results)
    assert all(result.is_stamped for result in results)


def test_a_detector_that_misses_what_was_planted_is_not_proven() -> None:
    blind = run_controls(target(1))[1]

    assert blind.wanted == "no_done"
    assert not type(blind)(name="cut", wanted="no_done", found=None, is_stamped=True).is_proven


def test_a_whole_answer_has_every_time_count_and_who_answered(client: Client) -> None:
    with endpoint("--name", "replica-1", "--decode-step-ms", "5") as running:
        (row,) = client.to(running.port).run()

    assert row.error is None
    assert (row.status, row.replica, row.finish_reason, row.is_done) == (200, "replica-1", "length", True)
    assert (row.events, row.tokens_out, len(row.gaps_us)) == (TOKENS, TOKENS, TOKENS - 1)
    assert row.t_sent_ns is not None
    assert row.t_first_ns is not None
    assert row.t_last_ns is not None
    assert row.t_end_ns is not None
    assert row.t_intended_ns < row.t_sent_ns < row.t_first_ns < row.t_last_ns <= row.t_end_ns
    assert row.connect_ms is not None
    assert sum(row.gaps_us) == pytest.approx((row.t_last_ns - row.t_first_ns) / 1000, abs=TOKENS)


def test_a_connection_is_used_again_unless_the_workload_wants_fresh_ones(client: Client) -> None:
    with endpoint("--decode-step-ms", "2") as running:
        reused = [row for _ in range(3) for row in client.to(running.port).run()]
        fresh = [row for _ in range(3) for row in client.to(running.port, reuses_connections=False).run()]

    assert [row.error for row in reused + fresh] == [None] * 6
    assert [row.connect_ms is None for row in reused] == [False, True, True]
    assert [row.connect_ms is None for row in fresh] == [False, False, False]


def test_an_idle_connection_that_the_server_closed_is_not_used(client: Client) -> None:
    with endpoint("--decode-step-ms", "2") as running:
        first = client.to(running.port).run()
    with endpoint("--decode-step-ms", "2") as running:
        second = client.to(running.port).run()

    assert [row.error for row in first + second] == [None, None]
    assert second[0].connect_ms is not None


def test_a_long_prompt_to_a_slow_reader_is_sent_whole(client: Client) -> None:
    received = []

    def read_slowly(connection: socket.socket) -> None:
        time.sleep(0.2)  # the sockets' buffers fill meanwhile
        body, answer = b"", PLANTED[0].parts
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split()[0])
        taken = len(body)
        while taken < length:
            taken += len(connection.recv(1024 * 1024))
        received.append(taken)
        connection.sendall(b"".join(answer))
        connection.recv(1)

    with raw_server(read_slowly) as port:
        (row,) = client.to(port).run(size=12_000_000)
        client.connections.close()

    assert row.error is None, row.error_detail
    assert received == [len(errand(0, 12_000_000).body)]


@pytest.mark.parametrize("length", [b"Content-Length: 8\r\n", b""])
@pytest.mark.parametrize("is_half_closed", [True, False])
def test_a_refusal_before_the_prompt_was_read_is_not_hidden_by_the_reset_that_follows(
    client: Client, length: bytes, is_half_closed: bool
) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n" + length + b"\r\ntoo long")
        if is_half_closed:
            connection.shutdown(socket.SHUT_WR)

    with raw_server(refuse) as port:
        (row,) = client.to(port).run(size=4_000_000)

    assert (row.error, row.status) == ("http_4xx", 413), row.error_detail
    assert row.error_detail == "HTTP 413: too long"


@pytest.mark.parametrize(
    ("fault", "kind", "timeout_s"),
    [
        ("cut", "no_done", 30),
        ("close", "truncated", 30),
        ("reset", "reset", 30),
        ("error", "http_5xx", 30),
        ("html", "content_type", 30),
        ("hang", "timeout", 0.6),
    ],
)
def test_each_fault_of_the_endpoint_is_a_failed_request_of_its_kind(
    client: Client, fault: str, kind: str, timeout_s: float
) -> None:
    with endpoint("--fault", fault, "--decode-step-ms", "2") as running:
        (row,) = client.to(running.port, timeout_s=timeout_s).run(timeout_s=40)

    assert (row.error, row.is_done) == (kind, False)
    assert row.error_detail


def drop_at_once(connection: socket.socket) -> None:
    connection.recv(65536)


def stay_silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def speak_nonsense(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def never_end_the_line(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: ")
    while True:
        connection.sendall(b"x" * 65536)


def send_a_header_without_end(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"y" * 65536)


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        (drop_at_once, "closed"),
        (stay_silent, "first_byte_timeout"),
        (speak_nonsense, "bad_http"),
        (never_end_the_line, "bad_event"),
        (send_a_header_without_end, "bad_http"),
    ],
)
def test_a_hostile_server_ends_as_a_named_error_in_bounded_time(
    client: Client, behave: Callable[[socket.socket], None], kind: str
) -> None:
    with raw_server(behave) as port:
        (row,) = client.to(port, first_byte_timeout_s=0.4 if behave is stay_silent else 30).run(timeout_s=40)

    assert row.error == kind


def test_nobody_listening_is_refused_and_nothing_was_sent(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    (row,) = client.to(port).run()

    assert (row.error, row.t_sent_ns, row.status) == ("refused", None, None)


def test_a_listener_that_never_accepts_is_a_connect_timeout(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        (row,) = client.to(port, connect_timeout_s=0.4).run()
        for filler in fillers:
            filler.close()

    assert row.error == "connect_timeout"


def rows_with_exact_ones(client: Client) -> tuple[list[Request], list[Request]]:
    """Make eight requests until two are exact, as what else this machine does may spoil all of eight."""
    for _ in range(20):
        rows = client.run(8, gap_s=0.02)
        exact = [row for row in rows if not row.reads_coalesced and not row.first_uncertain_ms]
        if len(exact) >= 2:
            break
    return rows, exact


def test_times_are_those_of_the_endpoint_even_when_the_client_is_busy(tmp_path: Path, client: Client) -> None:
    """The endpoint writes down when it sent each token; a busy client must report just that.

    The contrast is what a client reports that asks its own clock: the same times plus ``lag_ms_max``.
    """
    sends_file = tmp_path / "sends.ndjson"
    with endpoint("--decode-step-ms", "20", "--sends-file", str(sends_file)) as running:
        calm = client.to(running.port).run(8, gap_s=0.02)
        hog = gevent.spawn(keep_busy)
        busy, exact = rows_with_exact_ones(client)
        hog.kill()
    sends = [json.loads(line) for line in sends_file.read_text().splitlines()]
    sends = sends[:8] + sends[-8:]

    calm_errors_ms = errors_ms(calm, sends[:8])
    busy_errors_ms = errors_ms(exact, sends[8:])
    assert len(exact) >= 2  # of 8: only where the client read two events at once does it not know
    assert len(calm_errors_ms) == len(errors_ms(busy, sends[8:])) == 8 * TOKENS
    assert percentile(calm_errors_ms, 0.95) < 2
    assert percentile(busy_errors_ms, 0.9) < 2
    # The client's own clock would have been wrong by as much as the reads were late.
    assert percentile([row.lag_ms_max for row in busy], 0.5) > 8
    assert sum(row.reads_unstamped for row in calm + busy) == 0
    for row, error_ms in zip(busy, first_errors_ms(busy, sends[8:]), strict=True):
        assert error_ms <= row.first_uncertain_ms + 2


def let_the_hub_run(until: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not until() and time.monotonic() < deadline:
        gevent.sleep(0.01)
    return until()


def test_events_read_together_are_bracketed_by_what_the_row_says_is_uncertain(client: Client) -> None:
    asked, go, sent, read = (threading.Event() for _ in range(4))
    sent_ns: list[tuple[int, int]] = []  # no sooner and no later than

    def send_three_tokens(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        asked.set()
        go.wait(20)
        for pause_s in (0.02, 0.02, 0):
            begun_ns = time.time_ns()
            connection.sendall(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
            sent_ns.append((begun_ns, time.time_ns()))
            time.sleep(pause_s)
        sent.set()
        read.wait(20)  # the end of a connection, too, moves the stamp of what it is read with

    with raw_server(send_three_tokens) as port:
        client.to(port, timeout_s=30.0, first_byte_timeout_s=30.0)
        exchange = Exchange(errand(0), client.connections, client.take)
        exchange.begin()
        assert let_the_hub_run(asked.is_set)
        gevent.sleep(0.05)
        go.set()
        assert sent.wait(20)  # not gevent's: the hub stands still while three tokens come
        assert let_the_hub_run(lambda: exchange.events == 3)
        read.set()
        assert let_the_hub_run(lambda: bool(client.rows))
    (row,) = client.rows

    assert row.t_first_ns is not None
    assert (row.events, row.reads_coalesced, row.gaps_us) == (3, 1, (0, 0))
    assert sent_ns[2][0] <= row.t_first_ns <= sent_ns[2][1] + 2_000_000
    assert row.t_first_ns - row.first_uncertain_ms * 1e6 <= sent_ns[0][1] + 1_000_000
    # The hub has looked at its sockets every TICK_S until it stood still.
    assert 39 < row.first_uncertain_ms < (sent_ns[2][1] - sent_ns[0][0]) / 1e6 + 60


@pytest.mark.parametrize(("size_off", "error"), [(0, None), (1, "bad_http"), (-1, "bad_http")])
@pytest.mark.parametrize("spoilt", [0, 1, 4])
def test_a_wrong_chunk_size_is_seen_among_events_that_come_together(
    client: Client, size_off: int, error: str | None, spoilt: int
) -> None:
    def chunk(document: str, off: int = 0) -> bytes:
        data = f"data: {document}\n\n".encode()
        return b"%x\r\n%b\r\n" % (len(data) + off, data)

    def token(number: int, off: int = 0) -> bytes:
        return chunk(json.dumps({"choices": [{"index": 0, "delta": {"content": f" w{number}"}}]}), off)

    together = b"".join(token(number, size_off if number == spoilt else 0) for number in range(6))
    end = (
        chunk('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}') + chunk("[DONE]") + b"0\r\n\r\n"
    )

    def send(connection: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.recv(65536)
        for part in (head + token(0), together, end):
            connection.sendall(part)
            time.sleep(0.05)

    with raw_server(send) as port:
        (row,) = client.to(port).run()

    assert row.error == error, row.error_detail
    assert error or (row.events, row.reads_coalesced, len(row.gaps_us)) == (7, 1, 6)


def keep_busy() -> None:
    """Hold the hub for 15 ms at a time, as a client that parses too much does."""
    while True:
        end = time.perf_counter() + 0.015
        while time.perf_counter() < end:
            pass
        gevent.sleep(TICK_S / 4)


def errors_ms(rows: list[Request], sends: list[dict[str, object]]) -> list[float]:
    """Return by how much each reported token time is off."""
    by_id = {str(entry["request_id"]): entry["sends_ns"] for entry in sends}
    errors = []
    for row in rows:
        assert row.t_first_ns is not None
        at_ns = row.t_first_ns
        for position, sent_ns in enumerate(by_id[str(row.index)]):  # type: ignore[arg-type, var-annotated]
            at_ns += row.gaps_us[position - 1] * 1000 if position else 0
            errors.append(abs(at_ns - sent_ns) / 1e6)
    return errors


def first_errors_ms(rows: list[Request], sends: list[dict[str, object]]) -> list[float]:
    """Return by how much each reported first token is off."""
    by_id = {str(entry["request_id"]): entry["sends_ns"] for entry in sends}
    return [abs((row.t_first_ns or 0) - by_id[str(row.index)][0]) / 1e6 for row in rows]  # type: ignore[index]


def test_retry_after_is_recorded_and_words_that_no_file_can_hold_are_replaced(client: Client) -> None:
    said = json.dumps({"choices": [{"delta": {"content": "a"}, "finish_reason": "\ud800"}]}).encode()
    body = b"data: " + said + b"\n\ndata: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    refusal = b"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"

    def answers(whole: bytes) -> Callable[[socket.socket], None]:
        def behave(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(whole)

        return behave

    with raw_server(answers(head % len(body) + body)) as port:
        odd = client.to(port).run()[0]
    with raw_server(answers(refusal)) as port:
        refused = client.to(port).run()[0]

    assert (odd.error, odd.finish_reason) == (None, "?")
    assert (refused.error, refused.retry_after_s) == ("http_429", 7.0)

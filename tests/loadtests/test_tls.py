"""TLS: who is trusted, what every way of failing is called, and whose time it is that is reported."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from loadtests.preflight import ask
from loadtests.reading.control import PLANTED
from loadtests.reading.poll_clock import PollClock
from loadtests.reading.reader import Exchange
from loadtests.reading.tls import TlsError, TlsLayer, make_context
from loadtests.spec.workload import EndpointSpec
from probes.child import python_module
from probes.errors import ConfigError, TargetError
from probes.metric import percentile
from reports.table import read_requests
from tests.loadtests.certificates import Authority, make_authority
from tests.loadtests.clients import TOKENS, Client, errand
from tests.loadtests.endpoints import endpoint, raw_server
from tests.loadtests.test_reader import let_the_hub_run, rows_with_exact_ones

EVENT = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
GOOD = b"".join(PLANTED[0].parts)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client(PollClock())
    yield client
    client.connections.close()
    client.polls.close()


def over_tls(authority: Authority, **changes: object) -> dict[str, object]:
    context = make_context(str(authority.file))
    return {"tls": context, "server_name": "127.0.0.1", **changes}


def tls_server(context: ssl.SSLContext, behave: Callable[[ssl.SSLSocket], None]):  # type: ignore[no-untyped-def]
    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as wrapped:
            behave(wrapped)

    return raw_server(serve)


def answer_well(connection: ssl.SSLSocket) -> None:
    connection.recv(65536)
    connection.sendall(GOOD)
    connection.recv(1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_and_the_handshake_has_its_own_time(
    client: Client, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.server()
    context.minimum_version = context.maximum_version = version
    with tls_server(context, answer_well) as port:
        (row,) = client.to(port, **over_tls(authority)).run()
        client.connections.close()

    assert row.error is None, row.error_detail
    assert row.connect_ms is not None
    assert row.tls_ms is not None
    assert 0 < row.tls_ms < 2000
    assert row.t_sent_ns is not None
    assert row.t_sent_ns - row.t_intended_ns >= (row.connect_ms + row.tls_ms) * 1e6
    assert row.reads_unstamped == 0


def test_times_over_tls_are_those_of_the_endpoint_even_when_the_client_is_busy(
    tmp_path: Path, client: Client, authority: Authority
) -> None:
    sends_file, certificate = tmp_path / "sends.ndjson", authority.certificate("good")
    options = ("--tls-cert-file", str(certificate), "--sends-file", str(sends_file))
    with endpoint("--decode-step-ms", "30", *options) as running:
        client.to(running.port, **over_tls(authority))
        hog = gevent.spawn(keep_busy)
        rows, exact = rows_with_exact_ones(client)
        hog.kill()
        again = client.run(1)
    entries = [json.loads(line) for line in sends_file.read_text().splitlines()]
    sends = {str(entry["request_id"]): entry["sends_ns"] for entry in entries[-9:-1]}

    errors_ms = []
    for row in exact:
        at_ns = row.t_first_ns or 0
        for position, sent_ns in enumerate(sends[str(row.index)]):
            at_ns += row.gaps_us[position - 1] * 1000 if position else 0
            errors_ms.append(abs(at_ns - sent_ns) / 1e6)
    assert [row.error for row in [*rows, *again]] == [None] * 9
    assert len(exact) >= 2  # of 8: only where the client read two events at once does it not know
    assert len(errors_ms) == len(exact) * TOKENS
    assert percentile(errors_ms, 0.9) < 2
    # The client's own clock would have been wrong by as much as the reads were late.
    assert percentile([row.lag_ms_max for row in rows], 0.5) > 8
    assert again[0].connect_ms is None
    assert again[0].tls_ms is None


def keep_busy() -> None:
    while True:
        end = time.perf_counter() + 0.015
        while time.perf_counter() < end:
            pass
        gevent.sleep(0.001)


def server_side(context: ssl.SSLContext, connection: socket.socket) -> tuple[ssl.SSLObject, ssl.MemoryBIO]:
    """Make the handshake over a socket by hand; return the server's TLS and where its records come out."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
            incoming.write(connection.recv(65536))
    while True:
        try:
            tls.read(65536)
            return tls, outgoing
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
            incoming.write(connection.recv(65536))


def test_a_record_in_pieces_has_the_time_of_its_last_and_records_read_together_are_bracketed(
    client: Client, authority: Authority
) -> None:
    context = authority.server()
    go, sent, read = (threading.Event() for _ in range(3))
    sent_ns: list[tuple[int, int]] = []  # no sooner and no later than

    def behave(connection: socket.socket) -> None:
        tls, outgoing = server_side(context, connection)

        def record(data: bytes) -> bytes:
            tls.write(data)
            return outgoing.read()

        connection.sendall(record(HEAD))
        time.sleep(0.05)
        first = record(EVENT)
        connection.sendall(first[:7])  # not even its header and a byte
        time.sleep(0.05)
        connection.sendall(first[7:30])
        time.sleep(0.05)
        begun_ns = time.time_ns()
        connection.sendall(first[30:])
        sent_ns.append((begun_ns, time.time_ns()))
        go.wait(20)
        for _ in range(3):  # these come while the hub stands still
            event, begun_ns = record(EVENT), time.time_ns()
            connection.sendall(event)
            sent_ns.append((begun_ns, time.time_ns()))
            time.sleep(0.02)
        sent.set()
        read.wait(20)  # the end of a connection, too, moves the stamp of what it is read with

    with raw_server(behave) as port:
        patient = {"timeout_s": 30.0, "connect_timeout_s": 30.0, "first_byte_timeout_s": 30.0}
        client.to(port, **over_tls(authority, **patient))
        exchange = Exchange(errand(0), client.connections, client.take)
        exchange.begin()
        assert let_the_hub_run(lambda: exchange.events == 1)
        go.set()
        assert sent.wait(20)
        assert let_the_hub_run(lambda: exchange.events == 4)
        read.set()
        assert let_the_hub_run(lambda: bool(client.rows))
    (row,) = client.rows

    assert row.t_first_ns is not None
    assert row.t_last_ns is not None
    assert (row.error, row.events, row.reads_coalesced, row.gaps_censored) == ("truncated", 4, 1, 3)
    assert sent_ns[0][0] <= row.t_first_ns <= sent_ns[0][1] + 2_000_000
    assert row.first_uncertain_ms == 0
    assert sent_ns[3][0] <= row.t_last_ns <= sent_ns[3][1] + 2_000_000
    assert sum(row.gaps_us) == pytest.approx((row.t_last_ns - row.t_first_ns) / 1000, abs=4)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ({"age_days": 3}, "expired"),
        ({"host": "elsewhere.example"}, "not valid for '127.0.0.1'"),
        ({"host": "10.9.8.7"}, "not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_that_is_not_good_is_refused_with_its_reason(
    client: Client, authority: Authority, certificate: dict[str, object], reason: str
) -> None:
    with tls_server(authority.server("bad", **certificate), answer_well) as port:
        (row,) = client.to(port, **over_tls(authority)).run()
        with pytest.raises(TargetError, match=reason):
            ask(f"https://127.0.0.1:{port}", EndpointSpec(ca_file=str(authority.file)), "GET", "/", None)

    assert (row.error, row.status, row.t_sent_ns) == ("tls_failed", None, None)
    assert reason in row.error_detail


def test_an_authority_that_nobody_named_is_not_trusted(client: Client, authority: Authority) -> None:
    with tls_server(authority.server(), answer_well) as port:
        (row,) = client.to(port, tls=make_context(None), server_name="127.0.0.1").run()
        with pytest.raises(TargetError, match=r"no known authority.*ca_file"):
            ask(f"https://127.0.0.1:{port}", EndpointSpec(), "GET", "/", None)

    assert row.error == "tls_failed"
    assert "endpoint.ca_file" in row.error_detail


def stay_silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def close_at_once(connection: socket.socket) -> None:
    connection.recv(65536)


def reset_at_once(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def answer_in_http(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def speak_garbage(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x16\x03\x03\x00\x20" + b"\xff" * 4096)


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (stay_silent, "no TLS handshake within 0.4 s"),
        (close_at_once, "closed the connection in the TLS handshake"),
        (reset_at_once, "reset by peer in the TLS handshake"),
        (answer_in_http, "does not speak TLS there"),
        (speak_garbage, ""),
    ],
)
def test_a_handshake_that_fails_is_named(
    client: Client, authority: Authority, behave: Callable[[socket.socket], None], reason: str
) -> None:
    with raw_server(behave) as port:
        connect_timeout_s = 0.4 if behave is stay_silent else 30
        (row,) = client.to(port, **over_tls(authority, connect_timeout_s=connect_timeout_s)).run(timeout_s=40)

    assert row.error == "tls_failed"
    assert reason in row.error_detail
    assert row.error_detail


def test_plain_http_to_a_server_of_tls_says_so(client: Client, authority: Authority) -> None:
    with tls_server(authority.server(), answer_well) as port:
        (row,) = client.to(port).run()

    assert row.error in ("bad_http", "reset", "closed")
    assert row.error != "bad_http" or "https://" in row.error_detail


def test_a_stream_whose_end_tls_does_not_vouch_for_is_truncated(client: Client, authority: Authority) -> None:
    """Without a length, the end of the connection is the end of the answer: anybody can make one."""
    body = EVENT + b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    def end_well(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(HEAD + body)
        with contextlib.suppress(OSError):
            connection.unwrap()

    def end_badly(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(HEAD + body)

    with tls_server(authority.server(), end_well) as port:
        (well,) = client.to(port, **over_tls(authority)).run()
    with tls_server(authority.server(), end_badly) as port:
        (badly,) = client.to(port, **over_tls(authority)).run()

    assert well.error is None, well.error_detail
    assert badly.error == "truncated"
    assert "without TLS saying so" in badly.error_detail


def test_records_that_were_tampered_with_end_the_request(client: Client, authority: Authority) -> None:
    context = authority.server()

    def behave(connection: socket.socket) -> None:
        tls, outgoing = server_side(context, connection)
        tls.write(HEAD + EVENT)
        connection.sendall(outgoing.read())
        tls.write(EVENT)
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        connection.sendall(bytes(record))
        time.sleep(0.5)

    with raw_server(behave) as port:
        (row,) = client.to(port, **over_tls(authority)).run()

    assert (row.error, row.events) == ("tls_failed", 1)
    assert "bad record mac" in row.error_detail


def test_a_long_prompt_is_sent_whole_over_tls(client: Client, authority: Authority) -> None:
    received = []

    def read_slowly(connection: ssl.SSLSocket) -> None:
        time.sleep(0.2)
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        while b"Content-Length" not in head:
            more, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            head += more
        length, taken = int(head.partition(b"Content-Length: ")[2].split()[0]), len(body)
        while taken < length:
            taken += len(connection.recv(1024 * 1024))
        received.append(taken)
        connection.sendall(GOOD)
        connection.recv(1)

    with tls_server(authority.server(), read_slowly) as port:
        (row,) = client.to(port, **over_tls(authority)).run(size=2_000_000)
        client.connections.close()

    assert row.error is None, row.error_detail
    assert received == [len(errand(0, 2_000_000).body)]


def test_a_file_without_certificates_is_a_fault_of_the_workload(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")

    with pytest.raises(ConfigError, match="holds no certificates"):
        make_context(str(empty))
    with pytest.raises(ConfigError, match="No such file"):
        make_context(str(tmp_path / "nothing.pem"))


def test_old_versions_are_not_spoken(authority: Authority) -> None:
    layer = TlsLayer(make_context(str(authority.file)), "127.0.0.1")
    layer.shake()

    with pytest.raises(TlsError, match=r"protocol|version"):
        layer.shake(b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01" + bytes(32) + b"\x00\xc0\x13\x00")


def test_a_whole_run_goes_over_tls_to_an_authority_that_the_workload_names(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, done = authority.certificate("good"), []
    workload = tmp_path / "workload.yaml"
    with endpoint("--decode-step-ms", "5", "--tls-cert-file", str(certificate)) as running:
        for ca_file in (f"  ca_file: {authority.file}\n", ""):
            workload.write_text(
                "name: tls\narrivals: {kind: constant, rate_per_s: 20}\nduration_s: 1\n"
                f"endpoint:\n  url: https://127.0.0.1:{running.port}\n{ca_file}"
            )
            done.append(load_run(workload))
    good, unknown = done
    rows = read_requests(Path(good.stdout.splitlines()[-1]))

    assert [row.error for row in rows] == [None] * 20
    assert all(row.tls_ms is not None for row in rows if row.connect_ms is not None)
    assert any(row.tls_ms is not None for row in rows)
    assert unknown.returncode == 3
    assert "no known authority" in unknown.stderr


def load_run(workload: Path) -> subprocess.CompletedProcess[str]:
    command = python_module("overproof", "load", "run", str(workload), "--no-calibration")
    out = ("--out", str(workload.parent))
    return subprocess.run([*command, *out], capture_output=True, text=True, timeout=60, check=False)

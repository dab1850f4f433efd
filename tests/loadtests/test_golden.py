"""The golden endpoint: its times are held against the kernel's, and it leaves nothing half done behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from loadtests.calibration.golden_process import golden_endpoint
from loadtests.calibration.golden_record import GoldenRecord, read_golden
from probes.child import wait_until
from probes.errors import RecordError, TargetError

TOKENS = 40
SO_TIMESTAMPNS = 35


def ask_and_read(port: int, *, tokens: int = TOKENS, gap_ms: float = 5) -> tuple[int, list[int], bytes]:
    """Ask with a plain blocking socket; return when, the kernel's stamp of each event, and all bytes.

    It has nothing in common with the reader under test: one read per event, in a loop that does nothing else.
    """
    body = json.dumps({"max_tokens": tokens, "golden": {"first_ms": 20, "gap_ms": gap_ms}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nx-request-id: one\r\nContent-Length: {len(body)}\r\n\r\n"
    stamps, received = [], b""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to_itself,
    ):
        to_itself.bind(("127.0.0.1", 0))
        for one in (sock, to_itself):
            one.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        # The kernel begins to stamp, for all sockets at once, a moment after it was asked to.
        assert wait_until(lambda: is_stamped(to_itself), timeout_s=30)
        before = time.time_ns()
        sock.sendall(head.encode() + body)
        while b"\r\n0\r\n\r\n" not in received:
            data, ancillary, _, _ = sock.recvmsg(65536, 64)
            seconds, nanoseconds = struct.unpack("@qq", ancillary[0][2])
            stamps += [seconds * 1_000_000_000 + nanoseconds] * data.count(b'"content":" ')
            received += data
    return before, stamps, received


def is_stamped(sock: socket.socket) -> bool:
    """Send a datagram to the socket itself, and say whether it was stamped as it came, not as it was read."""
    sock.sendto(b"x", sock.getsockname())
    sent_ns = time.time_ns()
    seconds, nanoseconds = struct.unpack("@qq", sock.recvmsg(1, 64)[1][0][2])
    return bool(seconds * 1_000_000_000 + nanoseconds <= sent_ns)


def lies_outside(record: GoldenRecord, stamps: list[int], *, tolerance_ns: int = 200_000) -> int:
    """Return how many events did not reach the kernel within a moment of when they are said to be sent."""
    (stream,) = record.streams
    slow = dict(stream.slow)
    return sum(
        not 0 <= stamp - sent <= tolerance_ns + slow.get(number, 0)
        for number, (sent, stamp) in enumerate(zip(stream.sends_ns, stamps, strict=True))
    )


def test_the_golden_times_are_those_that_the_kernel_stamps_and_a_lie_of_1_ms_is_seen(tmp_path: Path) -> None:
    with golden_endpoint(tmp_path / "golden.bin") as golden:
        before, stamps, received = ask_and_read(golden.port)
        record = golden.stop()
    (stream,) = record.streams
    honest, wrong = list(stream.sends_ns), lies_outside(record, stamps)
    lied = GoldenRecord(streams=record.streams, clock_step_ns=0, blocked=0, cpu_s=0, wall_s=1)
    lied.streams[0].sends_ns = type(stream.sends_ns)("q", (at - 1_000_000 for at in stream.sends_ns))

    assert stream.request_id == "one"
    assert before <= stream.t_received_ns
    assert all(sent <= stamp for sent, stamp in zip(honest, stamps, strict=True))
    assert wrong <= TOKENS // 10  # a busy kernel may put off the receiving half of a write
    assert lies_outside(lied, stamps) >= TOKENS - TOKENS // 10
    assert received.count(b'"content":" ') == TOKENS
    assert b'"completion_tokens":40' in received


def test_each_event_is_planned_from_the_first_and_never_sent_before_its_time(tmp_path: Path) -> None:
    with golden_endpoint(tmp_path / "golden.bin") as golden:
        ask_and_read(golden.port, tokens=20, gap_ms=40)
        (stream,) = golden.stop().streams
    late = [at - stream.t_planned_ns - number * stream.gap_ns for number, at in enumerate(stream.sends_ns)]

    assert stream.gap_ns == 40_000_000
    assert stream.t_planned_ns - stream.t_received_ns >= 20_000_000
    assert min(late) >= -50_000  # the two clocks are read one after the other
    assert sorted(late)[10] < 20_000_000  # half a gap: it does not add up


def test_what_is_no_request_for_a_completion_is_refused_and_others_are_served_on(tmp_path: Path) -> None:
    wrong = (
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 3\r\n\r\n{]}",
        b'POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 18\r\n\r\n{"max_tokens": -1}',
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"nonsense\r\n\r\n",
    )
    statuses = []
    with golden_endpoint(tmp_path / "golden.bin") as golden:
        for data in wrong:
            with socket.create_connection(("127.0.0.1", golden.port), timeout=5) as sock:
                sock.sendall(data)
                match = re.match(rb"HTTP/1.1 (\d+)", sock.recv(4096))
                statuses.append(match and int(match[1]))
        left = socket.create_connection(("127.0.0.1", golden.port), timeout=5)
        left.sendall(b'POST /chat/completions HTTP/1.1\r\nContent-Length: 18\r\n\r\n{"max_tokens": 99}')
        left.recv(100)
        left.close()  # in the middle of its answer
        assert len(ask_and_read(golden.port, tokens=5)[1]) == 5
        record = golden.stop()

    assert statuses == [400, 400, 503, 413, 400]
    assert [len(stream.sends_ns) == 5 for stream in record.streams] == [False, True]


def test_a_record_that_is_short_changed_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "golden.bin"
    with golden_endpoint(path) as golden:
        ask_and_read(golden.port, tokens=3)
        golden.stop()
    whole = path.read_bytes()
    broken = {
        "empty": b"",
        "short": whole[:-20],
        "changed": whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:],
        "longer": whole + b"\0",
        "other": b"something else",
    }

    assert len(read_golden(path).streams) == 1
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RecordError, match="cannot be used"):
            read_golden(tmp_path / name)
    with pytest.raises(RecordError, match="cannot be used"):
        read_golden(tmp_path / "missing")


def test_a_golden_endpoint_that_was_killed_leaves_no_record_that_could_be_taken_for_one(
    tmp_path: Path,
) -> None:
    with golden_endpoint(tmp_path / "golden.bin") as golden:
        ask_and_read(golden.port, tokens=3)
        os.kill(golden.child.pid, signal.SIGKILL)
        with pytest.raises(RecordError, match="No such file"):
            golden.stop()

    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(TargetError, match=r"did not start: golden endpoint: 127\.0\.0\.1:\d+: cannot listen"),
        golden_endpoint(tmp_path / "golden.bin", port=taken.getsockname()[1]),
    ):
        pass


def test_it_leaves_with_whoever_started_it(tmp_path: Path) -> None:
    with golden_endpoint(tmp_path / "golden.bin") as golden:
        assert golden.child.stdin is not None
        golden.child.stdin.close()

        assert wait_until(lambda: golden.child.poll() is not None, timeout_s=30)
        assert golden.child.returncode == 0
        assert list(tmp_path.iterdir()) == []

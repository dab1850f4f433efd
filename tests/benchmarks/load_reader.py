"""How many streamed events one reader takes, at what cost: ``python -m tests.benchmarks load_reader``.

An endpoint process on the last core sends each stream one event per 10 ms, in ten slots of 1 ms; the reader
on the first core does what a real run does, the rows in their file included. The cost per event is that of
everything from the streams' first events to the last row on disk; the rate is that of the time in between.
``python -m tests.benchmarks.load_reader N`` measures N streams once.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure

STREAMS = (1200, 1500)
SLOTS = 10
SLOT_S = 0.001
EVENTS = 800  # per stream: 8 s
SETTLE_S = 1.0
_EVENT = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": %b}]}\n\n'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def figures() -> Iterator[Figure]:
    """Yield rate, cost and memory for each number of streams, each in a process of its own."""
    for streams in STREAMS:
        command = [sys.executable, "-m", "tests.benchmarks.load_reader", str(streams)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        found = json.loads(done.stdout)
        beside = (
            f"{found['rows']:.0f} rows, {found['failed']:.0f} failed, "
            f"{found['reads_coalesced']:.0f} reads held several, up to {found['lag_ms_max']:.0f} ms late"
        )
        units = {"events_per_s": "events/s", "cpu_us_per_event": "µs", "kib_per_stream": "KiB"}
        for name, unit in units.items():
            label = f"{streams} streams, {name}"
            yield Figure(name=label, median=found[name], unit=unit, repeats=1, beside=beside)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def serve(listener: socket.socket, streams: int) -> None:
    """Answer so many requests at once, event by event, then leave."""
    links = []
    for _ in range(streams):
        link, _ = listener.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        links.append(link)
    for link in links:
        link.recv(65536)
        link.sendall(_HEAD)
    words = [_chunk(_EVENT % (word, b"null")) for word in (b" measure", b" twice", b" then", b" trust")]
    end = _chunk(_EVENT % (b" end", b'"stop"')) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    due = time.monotonic() + SETTLE_S
    for number in range(EVENTS):
        data = end if number == EVENTS - 1 else words[number % len(words)]
        for slot in range(SLOTS):
            due += SLOT_S
            time.sleep(max(0.0, due - time.monotonic()))
            for link in links[slot::SLOTS]:
                link.sendall(data)
    time.sleep(1)


def read(port: int, streams: int) -> dict[str, float]:
    """Read so many streams to their end; return the figures."""
    import gevent

    from loadtests.connections import Connections, Target
    from loadtests.poll_clock import PollClock
    from loadtests.reader import Errand, Exchange
    from loadtests.recorder import Recorder
    from reports.record import create_run

    folder = tempfile.TemporaryDirectory()
    writer = create_run(Path(folder.name), kind="load", spec={}, seed=1)
    recorder = Recorder(writer, lambda _: None, worker=0)
    polls = PollClock()
    host = f"127.0.0.1:{port}"
    target = Target(
        url=f"http://{host}", host=host, family=socket.AF_INET, address=("127.0.0.1", port), path="/v1",
        head_fields="", is_streamed=True, timeout_s=60.0, connect_timeout_s=30.0, first_byte_timeout_s=30.0,
        reuses_connections=False,
    )  # fmt: skip
    connections, rows = Connections(target, polls), []
    gc.collect()
    gc.freeze()
    size_before = _resident_bytes()
    exchanges: list[Any] = []

    def take(exchange: Any) -> None:
        rows.append(exchange.row)
        recorder.put(exchange.row)

    for index in range(streams):
        errand = Errand(
            index=index,
            worker=0,
            t_intended_ns=time.time_ns(),
            body=b"{}",
            output_tokens=EVENTS,
            request_id="x",
        )
        exchanges.append(Exchange(errand, connections, take))
        exchanges[-1].begin()
        if index % 50 == 0:
            gevent.sleep(0.002)
    deadline = time.monotonic() + 30
    while not all(exchange.events or exchange.row for exchange in exchanges) and time.monotonic() < deadline:
        gevent.sleep(0.01)
    cpu_s, wall_s, events = _cpu_s(), time.monotonic(), _count(exchanges)
    gevent.sleep(EVENTS * SLOTS * SLOT_S - 1.0)
    events_per_s = (_count(exchanges) - events) / (time.monotonic() - wall_s)
    size = _resident_bytes() - size_before
    deadline = time.monotonic() + 15
    while len(rows) < streams and time.monotonic() < deadline:
        gevent.sleep(0.05)
        recorder.flush()
    recorder.flush()
    cpu_s, events = _cpu_s() - cpu_s, _count(exchanges) - events
    writer.close()
    folder.cleanup()
    return {
        "events_per_s": events_per_s,
        "cpu_us_per_event": cpu_s / events * 1e6,
        "kib_per_stream": size / streams / 1024,
        "rows": len(rows),
        "failed": sum(row.error is not None for row in rows),
        "reads_coalesced": sum(row.reads_coalesced for row in rows),
        "lag_ms_max": max((row.lag_ms_max for row in rows), default=0.0),
    }


def _count(exchanges: list[Any]) -> int:
    return sum(exchange.events for exchange in exchanges)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def main() -> None:
    """Measure once and print the figures."""
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    cores = sorted(os.sched_getaffinity(0))
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    child = os.fork()
    if not child:
        os.sched_setaffinity(0, {cores[-1]})
        try:
            serve(listener, streams)
        finally:
            os._exit(0)
    os.sched_setaffinity(0, {cores[0]})
    found = read(listener.getsockname()[1], streams)
    sys.stdout.write(json.dumps(found) + "\n")
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()

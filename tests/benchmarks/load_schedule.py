"""How late 2,000 arrivals a second are sent, bodies made on the way, to a server that costs little.

The server is a process of its own that answers whatever it is sent. After it, how long a body takes to make.
"""

from __future__ import annotations

import gc
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from loadtests.plan import LoadPlan
from loadtests.sending.dispatcher import Dispatcher, make_target
from loadtests.spec.workload import WorkloadSpec
from loadtests.traffic.arrivals import arrival_times_s
from loadtests.traffic.prompts import Prompts, make_body
from probes.child import end_child, python_module, start_child
from probes.metric import late_ms, percentile
from probes.request import Request
from tests.benchmarks.figure import Figure

_RATE_PER_S = 2000
_DURATION_S = 5.0
_EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(_EVENTS)
) + _EVENTS


def figures() -> Iterator[Figure]:
    """Yield the lateness of a Poisson schedule, and what a body costs."""
    spec = WorkloadSpec.model_validate(
        {
            "name": "schedule",
            "arrivals": {"kind": "poisson", "rate_per_s": _RATE_PER_S},
            "duration_s": _DURATION_S,
            "in_flight_max": 2000,
        }
    )
    bare = _bare_late_ms(spec)
    late, failed, cpu_s = _drive(spec)
    beside = f"{len(late)} arrivals of 128 tokens, {failed} failed, {cpu_s / _DURATION_S:.0%} of a core"
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("worst", 1.0)):
        yield Figure(
            name=f"{_RATE_PER_S}/s, late by {name}",
            median=percentile(late, share),
            unit="ms",
            repeats=1,
            beside=f"{beside}; a loop that only sleeps: {percentile(bare, share):.2f} ms",
        )
    for tokens in (128, 100_000):
        yield Figure(
            name=f"one body of {tokens} tokens", median=_body_ms(spec, tokens), unit="ms", repeats=50
        )


def _drive(spec: WorkloadSpec) -> tuple[list[float], int, float]:
    server = start_child(python_module("tests.benchmarks.load_schedule"), stdout=subprocess.PIPE)
    late: list[float] = []

    def take(row: Request) -> None:
        late.append(late_ms(row))  # a real run does not keep rows either, and a growing heap costs pauses

    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with tempfile.TemporaryDirectory() as folder:
            plan = LoadPlan(run=Path(folder), spec=spec, seed=1, url=url, model="m")
            dispatcher = Dispatcher(plan, make_target(plan, headers={}), take, worker=0, workers=1)
            gc.collect()
            gc.freeze()  # as the load process does
            began_s = time.process_time()
            dispatcher.walk(t0_ns=time.time_ns() + 100_000_000)
            dispatcher.drain(timeout_s=5)
            return late, dispatcher.counts.failed, time.process_time() - began_s
    finally:
        end_child(server)


def _bare_late_ms(spec: WorkloadSpec) -> list[float]:
    """Return how late this machine wakes a loop that sleeps from arrival to arrival and does nothing."""
    t0_s, late = time.monotonic(), []
    for at_s in arrival_times_s(spec.to_workload().arrivals, duration_s=2.0, seed=1):
        time.sleep(max(0.0, t0_s + at_s - time.monotonic()))
        late.append((time.monotonic() - t0_s - at_s) * 1000)
    return late


def _body_ms(spec: WorkloadSpec, tokens: int) -> float:
    prompts = Prompts(spec.to_workload().prompts, seed=1)
    prompts.sized(0, input_tokens=tokens)
    began_s = time.perf_counter()
    for index in range(50):
        make_body(
            prompts.sized(index, input_tokens=tokens), api="chat", model="m", is_streamed=True, extra={}
        )
    return (time.perf_counter() - began_s) * 1000 / 50


def _serve() -> None:
    """Answer each read that ends a request, until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                os._exit(0)
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ)
                continue
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(65536)
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()
            elif data.endswith(b"}"):
                key.fileobj.sendall(_ANSWER)


if __name__ == "__main__":
    _serve()

"""A load beside a check: products on the same device while a stage does something else there.

On a GPU they run on a stream of their own, some batches queued ahead, so that the device never waits for us.
Cores are there only once: there the products take turns with the check.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import torch

from burnin.node.bench import Bench
from burnin.node.number_format import FORMATS, PRIMARY
from burnin.node.operand import draw_on_host, place_on
from burnin.node.product import prepare

EDGE = {
    "cpu": 512,
    "cuda": 4096,
}  # 96 MiB on a GPU, of which the memory stage leaves more than that untouched
BATCH_S = 0.005  # of products queued as one
BATCHES_AHEAD = 4
TURNS_MAX = 4  # products after one piece of the check on cores, however long that piece took
NO_LOAD = "unloaded"  # the seeded fault of a load that never runs

_Mark = torch.cuda.Event


@dataclass(slots=True, kw_only=True)
class Load:
    """Operands, and what has been multiplied so far."""

    a: torch.Tensor
    b: torch.Tensor
    product: torch.Tensor
    name: str  # what the products are, in words
    is_seeded_away: bool
    stream: torch.cuda.Stream | None  # None: on cores, in turns
    batch: int = 1
    products: int = 0
    busy_s: float = 0.0  # by CPU time on cores, by the device's own marks on a GPU
    since_s: float = 0.0  # when the present piece of the check began, by CPU time
    running: deque[tuple[_Mark, _Mark]] = field(default_factory=deque)

    @property
    def flops(self) -> float:
        """Return the operations done so far."""
        return 2.0 * self.a.shape[0] ** 3 * self.products


def start_load(bench: Bench) -> Load:
    """Reserve what the products need, and do one: what the library takes for itself is taken then, too."""
    number_format, edge = FORMATS[PRIMARY[bench.kind]], EDGE[bench.kind]
    prepare(number_format)
    a, b = place_on(draw_on_host(number_format, edge=edge, seed=bench.seed), bench.torch_device)
    where = "on a second stream" if bench.kind == "cuda" else "in turns with the check"
    load = Load(
        a=a,
        b=b,
        product=torch.mm(a, b),
        name=f"products of {number_format.name}, {edge} cubed, {where}",
        is_seeded_away=NO_LOAD in bench.seeded,
        stream=_stream(bench) if bench.kind == "cuda" else None,
    )
    if load.stream is not None:
        load.stream.wait_stream(torch.cuda.current_stream(bench.torch_device))
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            with torch.cuda.stream(load.stream):
                torch.mm(a, b, out=load.product)
            load.stream.synchronize()
            load.batch = max(1, int(BATCH_S / max(time.perf_counter() - started, 1e-6)))
    load.since_s = time.process_time()
    bench.pace.step()
    return load


def _stream(bench: Bench) -> torch.cuda.Stream:
    return torch.cuda.Stream(bench.torch_device)  # type: ignore[no-untyped-call]


def keep_loaded(load: Load) -> None:
    """Give the device its next products; to be called after each piece of the check."""
    if load.is_seeded_away:
        return
    if load.stream is None:
        _take_turn(load)
        return
    _count_finished(load)
    while len(load.running) < BATCHES_AHEAD:
        _queue_batch(load, load.stream)


def _take_turn(load: Load) -> None:
    """Multiply for about as long as the piece of the check before took."""
    began = time.process_time()
    until = began + (began - load.since_s)
    for _ in range(TURNS_MAX):
        torch.mm(load.a, load.b, out=load.product)
        load.products += 1
        if time.process_time() >= until:
            break
    load.since_s = time.process_time()
    load.busy_s += load.since_s - began


def _queue_batch(load: Load, stream: torch.cuda.Stream) -> None:
    begun, ended = (_Mark(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        begun.record(stream)
        for _ in range(load.batch):
            torch.mm(load.a, load.b, out=load.product)
        ended.record(stream)
    load.running.append((begun, ended))


def _count_finished(load: Load) -> None:
    while load.running and load.running[0][1].query():  # type: ignore[no-untyped-call]
        begun, ended = load.running.popleft()
        load.busy_s += begun.elapsed_time(ended) / 1000
        load.products += load.batch


def settle(load: Load) -> None:
    """Wait for what is queued, so that it counts for the piece of the check that it ran beside."""
    if load.stream is not None:
        load.stream.synchronize()
        _count_finished(load)

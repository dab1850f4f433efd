"""The throughput phase: random data at full rate, sampled every second, every k-th product digested."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from burnin.bench import Bench
from burnin.digest import Weights, digest, digest_text, make_weights
from burnin.number_format import FORMATS
from burnin.product import flip_bit, multiply, prepare, wait_for_device
from burnin.seeding import SLOW_FACTOR

STAGE = "matmul"
# The format and size in which a device of this kind draws most and which siblings repeat bit for bit.
FORMAT = {"cpu": "fp32", "cuda": "bf16"}
EDGE = {"cpu": 1024, "cuda": 8192}
WINDOW_S = 1.0
WINDOWS_MIN = 4  # however short the phase: fewer cannot be judged
BATCH_S = 0.1  # products asked for at once, before the device is waited for
CHECK_SHARE_MAX = 0.02  # of the time that products take
DISSENTS_TOLD_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StressRequest:
    """Where to run the phase, and for how long."""

    bench: Bench
    length_s: float


@dataclass(slots=True, kw_only=True)
class _Rig:
    """Operands, weights and pace of one phase."""

    a: torch.Tensor
    b: torch.Tensor
    weights: Weights
    batch: int
    digest_every: int
    products: int = 0
    digests: int = 0
    first_digest: str = ""
    dissents: int = 0


def stress(request: StressRequest) -> None:
    """Multiply at full rate for ``length_s`` seconds; sample the rate, digest, compare digests."""
    bench = request.bench
    number_format = FORMATS[FORMAT[bench.kind]]
    prepare(number_format)
    until = time.monotonic() + request.length_s
    rig = _set_up(bench, getattr(torch, number_format.operand))
    _check_first(bench, rig, number_format.name)
    _prove_digest(bench, rig)
    windows = 0
    while windows < WINDOWS_MIN or time.monotonic() < until:
        _window(bench, rig, until=time.monotonic() + WINDOW_S)
        windows += 1
    bench.speaker.say(
        "throughput.result",
        stage=STAGE,
        device=bench.device,
        format=number_format.name,
        edge=EDGE[bench.kind],
        products=rig.products,
        digest_every=rig.digest_every,
        digests=rig.digests,
        digest=rig.first_digest,
        dissents=rig.dissents,
    )


def _set_up(bench: Bench, dtype: torch.dtype) -> _Rig:
    """Draw the operands, the same on every device, and measure how many products and digests fit."""
    edge = EDGE[bench.kind]
    generator = torch.Generator().manual_seed(bench.seed)
    a, b = (
        torch.randn(edge, edge, generator=generator, dtype=torch.float32).to(dtype).to(bench.torch_device)
        for _ in range(2)
    )
    weights = make_weights(edge, bench.torch_device)
    rig = _Rig(a=a, b=b, weights=weights, batch=1, digest_every=1)
    clock = time.process_time if bench.kind == "cpu" else time.perf_counter
    product_s = _shortest_s(lambda: multiply(a, b), a, clock)
    product = multiply(a, b)
    digest_s = _shortest_s(lambda: digest(product, weights), a, clock)
    rig.batch = max(1, int(BATCH_S / product_s))
    rig.digest_every = max(1, math.ceil(digest_s / (CHECK_SHARE_MAX * product_s)))
    bench.pace.step()
    return rig


def _shortest_s(work: Callable[[], object], tensor: torch.Tensor, clock: Callable[[], float]) -> float:
    """Return the shortest of a few times: what a neighbour on the machine disturbs least."""
    times = []
    for _ in range(8):
        started = clock()
        work()
        wait_for_device(tensor)
        times.append(clock() - started)
    return max(min(times), 1e-7)


def _check_first(bench: Bench, rig: _Rig, format_name: str) -> None:
    """Compare one product with fp64 arithmetic: a fault that is always there shows in no repeat.

    The bound holds for every order of summation, so a device that is right can never exceed it.
    """
    product = multiply(rig.a, rig.b)
    terms, roundoff = rig.a.shape[1], torch.finfo(product.dtype).eps / 2
    a, b = rig.a.double(), rig.b.double()
    reference, magnitude = a @ b, a.abs() @ b.abs()
    sum_roundoff = terms * 2.0**-24  # accumulated in fp32
    bound = magnitude * (sum_roundoff / (1 - sum_roundoff)) + reference.abs() * (2 * roundoff)
    error = (product.double() - reference).abs()
    outside = int((~(error <= bound)).sum().item())  # so that NaN lies outside
    bench.speaker.say(
        "reference.result",
        stage=STAGE,
        device=bench.device,
        format=format_name,
        elements=product.numel(),
        outside=outside,
        error_to_bound_max=float((error / bound).max().item()),
    )
    rig.first_digest = digest_text(digest(product, rig.weights))
    bench.pace.step()


def _prove_digest(bench: Bench, rig: _Rig) -> None:
    """Flip one bit in a product of our own and see whether the digest tells."""
    product = multiply(rig.a, rig.b)
    flip_bit(product, address=bench.seed % product.numel(), bit=0)
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector="bit flip in a digested product",
        is_found=digest_text(digest(product, rig.weights)) != rig.first_digest,
        fidelity="end to end",
    )


def _window(bench: Bench, rig: _Rig, *, until: float) -> None:
    """Multiply until the window ends; one row for the series."""
    started, cpu_started = time.perf_counter(), time.process_time()
    done, digests = 0, []
    while time.monotonic() < until:
        for _ in range(rig.batch):
            product = multiply(rig.a, rig.b)
            _slow_down(bench, rig)
            if rig.products % rig.digest_every == 0:
                _seed_fault(bench, rig, product)
                digests.append((rig.products, digest(product, rig.weights)))
            rig.products += 1
            done += 1
        wait_for_device(product)
        bench.pace.step()
    _tell(bench, done, time.perf_counter() - started, time.process_time() - cpu_started)
    _compare_digests(bench, rig, digests)


def _slow_down(bench: Bench, rig: _Rig) -> None:
    for _ in range(SLOW_FACTOR - 1 if "slow" in bench.seeded else 0):
        multiply(rig.a, rig.b)


def _seed_fault(bench: Bench, rig: _Rig, product: torch.Tensor) -> None:
    if "digest_flip" in bench.seeded and rig.digests == 0 and rig.products > 0:
        flip_bit(product, address=bench.seed * 7919 % product.numel(), bit=3)


def _tell(bench: Bench, done: int, wall_s: float, cpu_s: float) -> None:
    """One row: the rate by the clock and, on a CPU, by the time that its cores really worked for us.

    On a machine that others use too, only the second says something about the cores.
    """
    flops = 2.0 * EDGE[bench.kind] ** 3 * done
    row = {"device": bench.device, "tflops": flops / wall_s / 1e12, "products": done}
    if bench.kind == "cpu":
        core_s = max(cpu_s, 1e-9) / torch.get_num_threads()
        row |= {"busy_tflops": flops / core_s / 1e12, "busy_pct": 100 * core_s / wall_s}
    bench.speaker.sample(STAGE, **row)


def _compare_digests(bench: Bench, rig: _Rig, digests: list[tuple[int, torch.Tensor]]) -> None:
    for product, value in digests:
        text = digest_text(value)
        rig.digests += 1
        if text == rig.first_digest:
            continue
        rig.dissents += 1
        if rig.dissents <= DISSENTS_TOLD_MAX:
            bench.speaker.say(
                "digest.dissent",
                stage=STAGE,
                device=bench.device,
                product=product,
                digest=text,
                first_digest=rig.first_digest,
            )

"""The power stage on one device: random data at the shape that draws most; ramp, hold, then steps.

Synchronous training loads all GPUs at once and stops them at once: the steps do the same. Meanwhile every
k-th product is digested on the device, and its operands are compared with what the host had drawn.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import torch

from burnin.node.bench import Bench
from burnin.node.digest import Weights, digest, digest_text, make_weights
from burnin.node.number_format import FORMATS, PRIMARY
from burnin.node.operand import draw_on_host, place_on
from burnin.node.product import flip_bit, multiply, prepare, wait_for_device
from burnin.node.seeding import SLOW_FACTOR
from burnin.node.throughput import BATCH_S, EDGE, WINDOW_S, WINDOW_S_MIN, WINDOWS_MIN, rate_row

STAGE = "power"
RAMP_DUTIES = (0.25, 0.5, 0.75)  # shares of the time under load, one step after the other
RAMP_SHARE, HOLD_SHARE = 0.15, 0.55  # of the stage's length; the rest is for the steps
RAMP_S_MAX = 30.0
STEP_S = 1.0  # on, then off for as long: slow enough for the power supplies to follow, fast enough to hurt
CHECK_SHARE_MAX = 0.02  # of the time that products take
COST_ROUNDS = 7
# The first products are digested whatever k is: what is digested once can differ from nothing, and waiting
# for the third of every k-th once stretched a short stage on a busy machine to half a minute.
DIGESTS_MIN = 3
DISSENTS_TOLD_MAX = 16


@dataclass(slots=True, kw_only=True)
class Rig:
    """Operands, weights and pace of one stage."""

    a: torch.Tensor
    b: torch.Tensor
    weights: Weights
    host_digests: dict[str, str]  # of the operands, as the host had drawn them
    batch: int = 1
    digest_every: int = 1
    check_share: float = 0.0  # what digesting costs, of the time that products take
    products: int = 0
    digests: int = 0
    first_digest: str = ""
    dissents: int = 0
    hold_s: float = 0.0
    loaded_s: float = 0.0
    is_seeded: bool = False  # the user's fault has been put into one product
    waiting: list[tuple[int, torch.Tensor]] = field(default_factory=list)  # digests not read off yet


def run_power(bench: Bench, *, length_s: float, phase_offset_s: float | None = None) -> None:
    """Load the device as training does for ``length_s`` seconds; digest and compare all the time.

    With a phase offset the steps begin at that place in each period of the wall clock: all devices of a node
    together, and the nodes of a fleet one after the other.
    """
    until = time.monotonic() + length_s
    number_format = FORMATS[PRIMARY[bench.kind]]
    prepare(number_format)
    rig = set_up(bench)
    _check_operands(bench, rig, when="before")
    _check_first(bench, rig)
    _prove_digest(bench, rig)
    if bench.only_controls:
        return
    left_s = max(until - time.monotonic(), 0.0)
    _ramp(bench, rig, length_s=min(left_s * RAMP_SHARE, RAMP_S_MAX))
    _hold(bench, rig, length_s=left_s * HOLD_SHARE)
    _await_phase(phase_offset_s, until=until)
    _step(bench, rig, until=until)
    _check_operands(bench, rig, when="after")
    bench.speaker.say(
        "power.result",
        stage=STAGE,
        device=bench.device,
        format=number_format.name,
        edge=EDGE[bench.kind],
        products=rig.products,
        digest_every=rig.digest_every,
        check_share=rig.check_share,
        digests=rig.digests,
        digest=rig.first_digest,
        dissents=rig.dissents,
        hold_s=rig.hold_s,
        loaded_s=rig.loaded_s,
    )
    checked = rig.digests * EDGE[bench.kind] ** 2
    bench.say_loaded(STAGE, loaded_s=rig.loaded_s, checked_elements=checked)


def set_up(bench: Bench) -> Rig:
    """Draw the operands, the same on every device, and measure how many products and digests fit."""
    edge = EDGE[bench.kind]
    drawn = draw_on_host(FORMATS[PRIMARY[bench.kind]], edge=edge, seed=bench.seed)
    on_host = make_weights(edge, torch.device("cpu"))
    host_digests = {
        name: digest_text(digest(matrix, on_host)) for name, matrix in zip("ab", drawn, strict=True)
    }
    bench.pace.step()
    a, b = place_on(drawn, bench.torch_device)
    weights = make_weights(edge, bench.torch_device)
    if "input_flip" in bench.seeded:
        place = random.Random(f"{bench.seed}/{bench.device}/input")
        bits = a.element_size() * 8
        flip_bit(a, address=place.randrange(a.numel()), bit=place.randrange(bits))
    rig = Rig(a=a, b=b, weights=weights, host_digests=host_digests)
    product_s, digest_s = _costs(bench, rig)
    rig.batch = max(1, int(BATCH_S / product_s))
    rig.digest_every = max(1, math.ceil(digest_s / (CHECK_SHARE_MAX * product_s)))
    rig.check_share = digest_s / product_s / rig.digest_every
    bench.pace.step()
    return rig


def _costs(bench: Bench, rig: Rig) -> tuple[float, float]:
    """Return the seconds of a product and those that digesting it adds: the dearer of two answers.

    By itself a digest may find its memory ready; and it also pushes the operands out of the caches, which the
    next product pays for. Each round compares with itself, so that a busy machine disturbs both sides alike.
    """
    clock = time.process_time if bench.kind == "cpu" else time.perf_counter
    products, by_itself, in_turns = [], [], []
    for _ in range(COST_ROUNDS):
        marks = [clock()]
        wait_for_device(multiply(rig.a, rig.b))
        product = multiply(rig.a, rig.b)
        wait_for_device(product)
        marks.append(clock())
        wait_for_device(digest(product, rig.weights))
        marks.append(clock())
        for _ in range(2):
            wait_for_device(multiply(rig.a, rig.b))
        marks.append(clock())
        two, one_digest, two_after = (end - begin for begin, end in pairwise(marks))
        products.append(two / 2)
        by_itself.append(one_digest)
        in_turns.append(one_digest + two_after - two)
    return max(median(products), 1e-7), max(median(by_itself), median(in_turns), 0.0)


def _check_operands(bench: Bench, rig: Rig, *, when: str) -> None:
    """Compare the operands' digests with the host's: corrupted inputs give errors that repeat."""
    own = {name: digest_text(digest(m, rig.weights)) for name, m in (("a", rig.a), ("b", rig.b))}
    bench.speaker.say(
        "operands.result",
        stage=STAGE,
        device=bench.device,
        when=when,
        differing=[name for name, text in own.items() if text != rig.host_digests[name]],
        elements=rig.a.numel() + rig.b.numel(),
    )
    if when == "before":
        flipped = rig.a.clone()
        flip_bit(flipped, address=bench.seed * 31 % flipped.numel(), bit=0)
        is_found = digest_text(digest(flipped, rig.weights)) != own["a"]
        _say_control(bench, "bit flip in an operand", is_found)
    bench.pace.step()


def _product(bench: Bench, rig: Rig) -> torch.Tensor:
    """One product, with whatever fault the user asked to see found in each of them."""
    product = multiply(rig.a, rig.b)
    if "slow" in bench.seeded:
        for _ in range(SLOW_FACTOR - 1):
            multiply(rig.a, rig.b)
    if "every_product" in bench.seeded:
        place = random.Random(f"{bench.seed}/{bench.device}/product")
        bits = product.element_size() * 8
        flip_bit(product, address=place.randrange(product.numel()), bit=place.randrange(bits))
    return product


def _check_first(bench: Bench, rig: Rig) -> None:
    """Compare one product with fp64 arithmetic: a fault that is always there shows in no repeat.

    The bound holds for every order of summation, so a device that is right can never exceed it.
    """
    product = _product(bench, rig)
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
        format=PRIMARY[bench.kind],
        elements=product.numel(),
        outside=outside,
        error_to_bound_max=float((error / bound).max().item()),
    )
    rig.first_digest = digest_text(digest(product, rig.weights))
    bench.pace.step()


def _prove_digest(bench: Bench, rig: Rig) -> None:
    """Flip one bit in a product of our own and see whether the digest tells."""
    product = _product(bench, rig)
    flip_bit(product, address=bench.seed % product.numel(), bit=0)
    is_found = digest_text(digest(product, rig.weights)) != rig.first_digest
    _say_control(bench, "bit flip in a digested product", is_found)
    bench.pace.step()


def _say_control(bench: Bench, detector: str, is_found: bool) -> None:
    bench.speaker.say(
        "control",
        stage=STAGE,
        device=bench.device,
        detector=detector,
        is_found=is_found,
        fidelity="end to end",
    )


def _ramp(bench: Bench, rig: Rig, *, length_s: float) -> None:
    """Raise the load step by step: a power supply sees what it will get before it gets all of it."""
    window_s = max(length_s / len(RAMP_DUTIES), WINDOW_S_MIN)
    for duty in RAMP_DUTIES:
        run_window(bench, rig, "ramp", window_s=window_s * duty)
        time.sleep(window_s * (1 - duty))
        bench.pace.step()


def _hold(bench: Bench, rig: Rig, *, length_s: float) -> None:
    """Full load without a pause."""
    started, windows = time.monotonic(), 0
    window_s = min(WINDOW_S, max(length_s / (WINDOWS_MIN + 1), WINDOW_S_MIN))
    while windows < WINDOWS_MIN or time.monotonic() + window_s <= started + length_s:
        run_window(bench, rig, "hold", window_s=window_s)
        windows += 1
        if windows == 2:
            bench.act_dead()
    rig.hold_s = time.monotonic() - started


def _await_phase(phase_offset_s: float | None, *, until: float) -> None:
    if phase_offset_s is None:
        return
    wait_s = (phase_offset_s - time.time()) % (2 * STEP_S)
    if time.monotonic() + wait_s + 4 * STEP_S <= until:  # else there are too few steps to be in any phase
        time.sleep(wait_s)


def _step(bench: Bench, rig: Rig, *, until: float) -> None:
    """Full load and none in turns; once at least."""
    is_first = True
    step_s = min(STEP_S, max((until - time.monotonic()) / 2, WINDOW_S_MIN))
    while is_first or time.monotonic() + 2 * step_s <= until:
        is_first = False
        run_window(bench, rig, "steps", window_s=step_s)
        time.sleep(step_s)
        bench.pace.step()


def run_window(bench: Bench, rig: Rig, phase: str, *, window_s: float) -> None:
    """Multiply until the window ends; one row for the series."""
    started, cpu_started = time.perf_counter(), time.process_time()
    until, done = time.monotonic() + window_s, 0
    while time.monotonic() < until:
        for _ in range(rig.batch):
            product = _product(bench, rig)
            if rig.products < DIGESTS_MIN or rig.products % rig.digest_every == 0:
                _seed_fault(bench, rig, product)
                rig.waiting.append((rig.products, digest(product, rig.weights)))
            del product  # so that the next one takes its place, which the caches still hold
            rig.products += 1
            done += 1
        wait_for_device(rig.a)
        bench.pace.step()
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    rig.loaded_s += wall_s
    rates = rate_row(bench, EDGE[bench.kind], done, wall_s, cpu_s)
    bench.speaker.sample(STAGE, device=bench.device, phase=phase, products=done, **rates)
    _compare_digests(bench, rig)


def _seed_fault(bench: Bench, rig: Rig, product: torch.Tensor) -> None:
    if rig.is_seeded or not rig.products:
        return
    rig.is_seeded = True
    place = random.Random(f"{bench.seed}/{bench.device}/digested")
    address = place.randrange(product.numel())
    if "digest_flip" in bench.seeded:
        flip_bit(product, address=address, bit=place.randrange(product.element_size() * 8))
    if "nan" in bench.seeded:
        product.view(-1)[address] = float("nan")


def _compare_digests(bench: Bench, rig: Rig) -> None:
    for product, value in rig.waiting:
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
    rig.waiting.clear()

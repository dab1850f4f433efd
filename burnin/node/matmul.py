"""The matmul stage on one device: controls, exact phase, throughput phase. Judging happens elsewhere.

Alone, while the other devices rest, only the rates are measured; the rest is done on all at once.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

import torch

from burnin.node.bench import Bench
from burnin.node.exact import ADDRESSES_MAX, Miscompare, Operands, compare, make_operands
from burnin.node.number_format import FORMATS, NumberFormat, supported
from burnin.node.product import flip_bit, multiply, prepare
from burnin.node.rounds import ALONE, TOGETHER
from burnin.node.throughput import measure_throughput
from probes.json_types import JsonObject

STAGE = "matmul"
EXACT_SHARE = 0.35  # of the stage's length; the rest is the throughput phase
# The reference of an exact product is int64 arithmetic on the host; these sizes keep that under a second.
EXACT_EDGE = {"cpu": 512, "cuda": 2048}
OPERANDS_EVERY_S = 0.5
MISCOMPARES_TOLD_MAX = 16  # per format; what comes later is counted


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What the exact phase has seen of one format."""

    products: int = 0
    operand_sets: int = 0
    miscompared_products: int = 0
    miscompared_elements: int = 0


@dataclass(slots=True, kw_only=True)
class _LateFlip:
    """A seeded bit flip that happens once, at a random time of the phase."""

    at: float  # monotonic seconds
    is_over: bool


def run_matmul(bench: Bench, *, length_s: float, options: JsonObject, phase: str = TOGETHER) -> None:
    """Run the stage for about ``length_s`` seconds."""
    names, lacking = supported([str(name) for name in options["formats"]], bench.kind, _capability(bench))
    until = time.monotonic() + length_s
    if phase == ALONE:
        measure_throughput(bench, names, length_s=length_s, phase=phase)
        return
    bench.speaker.say("formats", stage=STAGE, device=bench.device, tested=names, left_out=lacking)
    if names:
        started = time.monotonic()
        floating = [name for name in names if FORMATS[name].result != "int32"]
        _prove_detectors(bench, FORMATS[(floating or names)[0]])
        if bench.only_controls:
            return
        exact_until = until - length_s * (1 - EXACT_SHARE)
        tallies = _exact_phase(bench, [FORMATS[n] for n in names], until=exact_until)
        for name, tally in tallies.items():
            _tell_exact(bench, name, tally)
        checked = sum(tally.products for tally in tallies.values()) * EXACT_EDGE[bench.kind] ** 2
        bench.say_loaded(STAGE, loaded_s=time.monotonic() - started, checked_elements=checked)
    measure_throughput(bench, names, length_s=until - time.monotonic(), phase=phase)


def _capability(bench: Bench) -> tuple[int, int]:
    return torch.cuda.get_device_capability(bench.torch_device) if bench.kind == "cuda" else (0, 0)


def _prove_detectors(bench: Bench, number_format: NumberFormat) -> None:
    """Seed a flipped bit and a NaN into a product of our own, and see whether the comparison names them."""
    operands = _draw(bench, number_format, index=0)
    prepare(number_format)
    edge = operands.reference.shape[0]
    place = random.Random(bench.seed)
    for detector in ("bit flip", "NaN"):
        product = multiply(operands.a, operands.b)
        address = place.randrange(edge * edge)
        if detector == "bit flip":
            flip_bit(product, address=address, bit=place.randrange(product.element_size() * 8))
        elif product.is_floating_point():
            product.view(-1)[address] = float("nan")
        else:
            continue
        found = compare(product, operands.reference)
        bench.speaker.say(
            "control",
            stage=STAGE,
            device=bench.device,
            detector=f"{detector} in a product",
            is_found=found is not None and found.addresses == [address],
            fidelity="end to end",
        )
        bench.pace.step()


def _draw(bench: Bench, number_format: NumberFormat, *, index: int) -> Operands:
    # A string seeds the same way in every process and every version of Python.
    seed = random.Random(f"{bench.seed}/{number_format.name}/{index}").getrandbits(62)
    return make_operands(
        number_format,
        edge=EXACT_EDGE[bench.kind],
        generator=torch.Generator().manual_seed(seed),
        device=bench.torch_device,
    )


def _exact_phase(bench: Bench, formats: list[NumberFormat], *, until: float) -> dict[str, _Tally]:
    """Multiply and compare, one operand set after the other, the formats in turn; each gets one at least."""
    tallies = {number_format.name: _Tally() for number_format in formats}
    late, index = _late_flip(bench, until=until), 0
    while index < len(formats) or time.monotonic() < until:
        number_format = formats[index % len(formats)]
        prepare(number_format)
        operands = _draw(bench, number_format, index=index)
        if "input_flip" in bench.seeded:
            flip_bit(operands.a, address=bench.seed % operands.a.numel(), bit=0)
        index += 1
        _multiply_set(bench, number_format, operands, tallies[number_format.name], late, until=until)
    return tallies


def _late_flip(bench: Bench, *, until: float) -> _LateFlip:
    begin = time.monotonic()
    share = random.Random(f"{bench.seed}/{bench.device}/late").random()
    return _LateFlip(at=begin + share * (until - begin), is_over="late_flip" not in bench.seeded)


def _multiply_set(
    bench: Bench,
    number_format: NumberFormat,
    operands: Operands,
    tally: _Tally,
    late: _LateFlip,
    *,
    until: float,
) -> None:
    tally.operand_sets += 1
    set_until = min(time.monotonic() + OPERANDS_EVERY_S, until)
    is_first = True
    while is_first or time.monotonic() < set_until:
        is_first = False
        product = multiply(operands.a, operands.b)
        _seed_fault(bench, number_format, product, tally)
        if not late.is_over and time.monotonic() >= late.at:
            _flip_late(bench, number_format, product, late)
        miscompare = compare(product, operands.reference)
        if miscompare is not None:
            _note(bench, number_format, tally, miscompare)
        tally.products += 1
        bench.pace.step()


def _seed_fault(bench: Bench, number_format: NumberFormat, product: torch.Tensor, tally: _Tally) -> None:
    """Do to one product what the user asked to see found: in the first operand set of a format, product 3."""
    if "every_product" in bench.seeded:
        place = random.Random(f"{bench.seed}/{bench.device}/every product")
        bits = product.element_size() * 8
        flip_bit(product, address=place.randrange(product.numel()), bit=place.randrange(bits))
    if tally.products != 3 or not bench.seeded & {"bit_flip", "nan", "stall", "crash"}:
        return
    place = random.Random(f"{bench.seed}/{bench.device}/{number_format.name}")
    address = place.randrange(product.numel())
    if "bit_flip" in bench.seeded:
        flip_bit(product, address=address, bit=place.randrange(product.element_size() * 8))
    if "nan" in bench.seeded and product.is_floating_point():
        product.view(-1)[address] = float("nan")
    bench.act_dead()


def _flip_late(bench: Bench, number_format: NumberFormat, product: torch.Tensor, late: _LateFlip) -> None:
    """Flip the bit, and say so: a phase may end before its time has come, and then nothing was seeded."""
    late.is_over = True
    place = random.Random(f"{bench.seed}/{bench.device}/late place")
    bits = product.element_size() * 8
    flip_bit(product, address=place.randrange(product.numel()), bit=place.randrange(bits))
    bench.speaker.say(
        "fault.seeded", stage=STAGE, device=bench.device, fault="late_flip", format=number_format.name
    )


def _note(bench: Bench, number_format: NumberFormat, tally: _Tally, miscompare: Miscompare) -> None:
    """Put a miscompare on the record at once: the worker may not live to sum up."""
    tally.miscompared_products += 1
    tally.miscompared_elements += miscompare.count
    if tally.miscompared_products > MISCOMPARES_TOLD_MAX:
        return
    bench.speaker.say(
        "miscompare",
        stage=STAGE,
        device=bench.device,
        format=number_format.name,
        product=tally.products,
        elements=miscompare.count,
        addresses=miscompare.addresses[:ADDRESSES_MAX],
        patterns=miscompare.patterns,
        period=miscompare.period,
        row_length=EXACT_EDGE[bench.kind],
    )


def _tell_exact(bench: Bench, name: str, tally: _Tally) -> None:
    edge = EXACT_EDGE[bench.kind]
    bench.speaker.say(
        "exact.result",
        stage=STAGE,
        device=bench.device,
        format=name,
        edge=edge,
        products=tally.products,
        operand_sets=tally.operand_sets,
        elements=tally.products * edge * edge,
        miscompared_products=tally.miscompared_products,
        miscompared_elements=tally.miscompared_elements,
    )

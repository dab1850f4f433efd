"""The exact phase: integer operands whose products are known beforehand, bit for bit.

Every partial sum is exact in the accumulator whatever the order, and every result is exact in its type, so a
device that is right gives the reference exactly. The reference comes from int64 arithmetic on the host: other
units, other code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from burnin.node.number_format import NumberFormat
from burnin.node.period import find_period
from burnin.node.product import lay_out, words

ADDRESSES_MAX = 8  # of one product's miscompares, enough to see a pattern
PERIOD_ADDRESSES_MAX = 4096  # looked at for a period


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """Two operands on the device and what their product has to be."""

    a: torch.Tensor
    b: torch.Tensor
    reference: torch.Tensor
    amplitude: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Miscompare:
    """Elements of one product that differ from the reference."""

    count: int
    addresses: list[int]  # the first few, as positions in row-major order
    patterns: list[str]  # which bits differ there, in hexadecimal
    period: int | None = None  # the distance at which addresses repeat; None: they do not, or too few differ


def make_operands(
    number_format: NumberFormat, *, edge: int, generator: torch.Generator, device: torch.device
) -> Operands:
    """Draw operands with the largest integers for which accumulator and result are both exact.

    Zero is not drawn: without it no sum of products can be -0, so results may be compared bit by bit.
    """
    amplitude = choose_amplitude(number_format, edge)
    result = getattr(torch, number_format.result)
    while True:
        a, b = (_integers(amplitude, edge, generator) for _ in range(2))
        exact = a @ b
        reference = exact.to(result)
        if torch.equal(reference.to(torch.int64), exact):
            break
        assert amplitude > 1, f"{number_format.name}: {edge} terms of ±1 do not fit the result"
        amplitude //= 2
    operand = getattr(torch, number_format.operand)
    return Operands(
        a=a.to(operand).to(device),
        b=lay_out(b.to(operand).to(device)),
        reference=reference.to(device),
        amplitude=amplitude,
    )


def choose_amplitude(number_format: NumberFormat, edge: int) -> int:
    """Return the largest operand for which no sum can leave the accumulator's exact range.

    For the result's type only the sums that do occur matter: they stay within six standard deviations (one
    element in a billion does not, and then the next smaller amplitude is taken).
    """
    amplitude = min(math.isqrt(number_format.sum_max // edge), number_format.operand_max)
    if number_format.result_max < number_format.sum_max:
        allowed = number_format.result_max / (6 * math.sqrt(edge))  # mean square of an operand
        fitting = (n for n in range(amplitude, 1, -1) if (n + 1) * (2 * n + 1) / 6 <= allowed)
        amplitude = next(fitting, 1)
    return amplitude


def _integers(amplitude: int, edge: int, generator: torch.Generator) -> torch.Tensor:
    size = torch.randint(1, amplitude + 1, (edge, edge), generator=generator, dtype=torch.int64)
    return size * (torch.randint(0, 2, (edge, edge), generator=generator, dtype=torch.int64) * 2 - 1)


def compare(product: torch.Tensor, reference: torch.Tensor) -> Miscompare | None:
    """Compare every element bit by bit; None: all are right. A NaN differs like anything else."""
    differing = words(product) != words(reference)
    count = int(differing.sum().item())
    if not count:
        return None
    found = differing.view(-1).nonzero().view(-1)[:PERIOD_ADDRESSES_MAX]
    addresses = found[:ADDRESSES_MAX]
    xor = words(product).view(-1)[addresses].bitwise_xor(words(reference).view(-1)[addresses])
    width = product.element_size() * 8
    return Miscompare(
        count=count,
        addresses=[int(address) for address in addresses.tolist()],
        patterns=[f"{int(bits) & ((1 << width) - 1):#0{width // 4 + 2}x}" for bits in xor.tolist()],
        period=find_period(found.tolist()),
    )

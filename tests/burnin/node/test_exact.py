"""Operands whose products are known beforehand, and a comparison that misses nothing."""

from __future__ import annotations

import pytest
import torch

from burnin.node.exact import compare, make_operands
from burnin.node.number_format import FORMATS, supported
from burnin.node.product import flip_bit, multiply, prepare, words

CPU = torch.device("cpu")
ON_CPU = [name for name in FORMATS if "cpu" in FORMATS[name].kinds]


def _operands(name: str, edge: int = 64, seed: int = 1):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    return make_operands(FORMATS[name], edge=edge, generator=generator, device=CPU)


@pytest.mark.parametrize("name", ON_CPU)
def test_a_healthy_device_gives_the_reference_bit_for_bit(name: str) -> None:
    prepare(FORMATS[name])
    operands = _operands(name, edge=256)

    assert compare(multiply(operands.a, operands.b), operands.reference) is None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("edge", [64, 512, 1024])
def test_reference_and_operands_are_exact_in_their_types_and_partial_sums_in_the_accumulator(
    name: str, edge: int
) -> None:
    number_format = FORMATS[name]
    operands = _operands(name, edge=edge)
    a, b = operands.a.to(torch.int64), operands.b.to(torch.int64)

    assert torch.equal(operands.reference.to(torch.int64), a @ b)
    assert int((a.abs() @ b.abs()).max()) <= number_format.sum_max
    assert int(a.abs().max()) <= number_format.operand_max
    assert int(a.abs().min()) >= 1
    assert not torch.equal(a, a.flip(0)), "the operands are not constant"


def test_integers_of_8_at_8192_terms_would_be_wrong_in_bf16_so_they_are_not_drawn() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randint(-8, 9, (8, 8192), generator=generator)
    b = torch.randint(-8, 9, (8192, 8), generator=generator)
    exact = a @ b
    share_wrong = (exact.to(torch.bfloat16).to(torch.int64) != exact).double().mean().item()

    assert share_wrong > 0.5
    assert _operands("bf16", edge=1024).amplitude == 1


@pytest.mark.parametrize("name", ON_CPU)
def test_every_single_bit_of_an_element_is_seen_with_its_address_and_pattern(name: str) -> None:
    operands = _operands(name, edge=32)
    for bit in range(operands.reference.element_size() * 8):
        product = operands.reference.clone()
        flip_bit(product, address=70 + bit, bit=bit)

        found = compare(product, operands.reference)

        assert found is not None
        assert (found.count, found.addresses) == (1, [70 + bit])
        assert int(found.patterns[0], 16) == 1 << bit


def test_nan_and_infinity_are_miscompares_like_any_other() -> None:
    operands = _operands("fp32", edge=32)
    product = operands.reference.clone()
    product.view(-1)[[3, 5]] = torch.tensor([float("nan"), float("inf")])

    found = compare(product, operands.reference)

    assert found is not None
    assert (found.count, found.addresses) == (2, [3, 5])


def test_many_wrong_elements_are_counted_and_the_first_few_named() -> None:
    operands = _operands("fp32", edge=32)

    found = compare(torch.zeros_like(operands.reference), operands.reference)

    assert found is not None
    assert found.count == int((words(operands.reference) != 0).sum())
    assert len(found.addresses) == 8


def test_the_same_seed_draws_the_same_operands_and_another_seed_others() -> None:
    first, again, other = _operands("fp32", seed=1), _operands("fp32", seed=1), _operands("fp32", seed=2)

    assert torch.equal(first.a, again.a)
    assert torch.equal(first.reference, again.reference)
    assert not torch.equal(first.a, other.a)


def test_a_fault_in_an_operand_is_seen_too() -> None:
    operands = _operands("fp32")
    flip_bit(operands.a, address=100, bit=22)

    found = compare(multiply(operands.a, operands.b), operands.reference)

    assert found is not None
    assert found.count == 64, "one operand takes part in a whole row"


def test_formats_that_a_device_lacks_are_named() -> None:
    assert supported(["fp32", "tf32", "fp16"], "cpu") == (["fp32"], ["tf32", "fp16"])

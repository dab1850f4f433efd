"""fp8 is tested on GPUs only; the calls that it takes are met here, on a CPU that is slow at them."""

from __future__ import annotations

import torch

from burnin.node.exact import compare, make_operands
from burnin.node.number_format import FORMATS, supported
from burnin.node.product import flip_bit, multiply, prepare


def test_an_exact_product_in_fp8_equals_int64_arithmetic_and_a_flipped_bit_is_seen() -> None:
    prepare(FORMATS["fp8"])
    operands = make_operands(
        FORMATS["fp8"], edge=64, generator=torch.Generator().manual_seed(1), device=torch.device("cpu")
    )
    product = multiply(operands.a, operands.b)

    assert operands.amplitude > 1
    assert compare(product, operands.reference) is None
    flip_bit(product, address=100, bit=3)
    found = compare(product, operands.reference)
    assert found is not None
    assert (found.count, found.addresses) == (1, [100])


def test_a_gpu_is_tested_in_the_formats_that_its_generation_has() -> None:
    names = list(FORMATS)

    assert supported(names, "cuda", (7, 5))[1] == ["tf32", "bf16", "fp8"]
    assert supported(names, "cuda", (8, 0))[1] == ["fp8"]
    assert supported(names, "cuda", (9, 0))[1] == []
    assert supported(names, "cpu")[0] == ["fp64", "fp32", "bf16", "int8"]

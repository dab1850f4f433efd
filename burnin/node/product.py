"""One matrix product in a stated number format, with everything that would make it inexact switched off."""

from __future__ import annotations

import torch

from burnin.node.number_format import NumberFormat

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def prepare(number_format: NumberFormat) -> None:
    """Set the switches of torch that decide how this format is multiplied."""
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = number_format.name == "tf32"
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_reduced_precision_reduction = False


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a · b; int8 gives int32, fp8 gives fp32."""
    if a.dtype is torch.float8_e4m3fn:
        one = torch.ones((), dtype=torch.float32, device=a.device)
        return torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.float32, use_fast_accum=False)
    if a.dtype is torch.int8:
        return torch._int_mm(a, b)
    return torch.mm(a, b)


def lay_out(b: torch.Tensor) -> torch.Tensor:
    """Return a right operand the way its product wants it: column after column for fp8."""
    return b.t().contiguous().t() if b.dtype is torch.float8_e4m3fn else b


def wait_for_device(tensor: torch.Tensor) -> None:
    """Return when the device has done all that was asked of it."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def words(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor's bits as integers of the same width: what equality means here."""
    return tensor.view(_WORDS[tensor.element_size()])


def flip_bit(tensor: torch.Tensor, *, address: int, bit: int) -> None:
    """Flip one bit of one element in place: a seeded fault, in a buffer of our own."""
    flat = words(tensor).view(-1)
    is_sign = bit == tensor.element_size() * 8 - 1
    flat[address] = flat[address].bitwise_xor(-(1 << bit) if is_sign else 1 << bit)

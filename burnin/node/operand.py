"""Random operands of one number format: the same on every device, with many bits toggling."""

from __future__ import annotations

import torch

from burnin.node.number_format import NumberFormat
from burnin.node.product import lay_out


def draw_on_host(number_format: NumberFormat, *, edge: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw two operands in host memory: the same for a seed, wherever they are drawn."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, number_format.operand)
    if not dtype.is_floating_point:
        one, other = (
            torch.randint(-127, 128, (edge, edge), generator=generator, dtype=torch.int32).to(dtype)
            for _ in range(2)
        )
        return one, other
    # Narrow formats are drawn in fp32; fp64 in its own, or the low bits of every mantissa would rest.
    drawn = torch.float64 if dtype is torch.float64 else torch.float32
    one, other = (torch.randn(edge, edge, generator=generator, dtype=drawn).to(dtype) for _ in range(2))
    return one, other


def place_on(
    operands: tuple[torch.Tensor, torch.Tensor], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return copies of two operands on a device, laid out as their product wants them."""
    a, b = operands
    return a.to(device, copy=True), lay_out(b.to(device, copy=True))

"""Digests: a matrix in 64 bits, computed where the matrix is.

Each element's bits are weighted by an odd number of its row and of its column, modulo 2^64: a change of any
single element always changes the digest, and so, but for one chance in about 2^60, does anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from burnin.node.product import words

_SEED = 20261121  # the same weights everywhere, so that devices and runs can be compared
# Weighted at once. A core's share of the cache holds 64 rows of 1024; a whole matrix would go through memory
# that the allocator fetches and gives back each time, at up to eight times the cost. A GPU takes it whole.
ROWS_AT_ONCE = {"cpu": 64, "cuda": 1 << 14}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Odd weights of rows and columns."""

    rows: torch.Tensor
    columns: torch.Tensor


def make_weights(edge: int, device: torch.device) -> Weights:
    """Draw the weights for square matrices of this size."""
    generator = torch.Generator().manual_seed(_SEED)
    rows, columns = (
        (torch.randint(-(2**62), 2**62, (edge,), generator=generator, dtype=torch.int64) | 1).to(device)
        for _ in range(2)
    )
    return Weights(rows=rows, columns=columns)


def digest(matrix: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Return the digest as a tensor of one int64: reading it off may wait until the device is idle."""
    bits, rows = words(matrix), ROWS_AT_ONCE[matrix.device.type]
    parts = []
    for first in range(0, bits.shape[0], rows):
        by_row = (bits[first : first + rows].to(torch.int64) * weights.columns).sum(dim=1)
        parts.append((by_row * weights.rows[first : first + rows]).sum())
    return torch.stack(parts).sum()


def digest_text(value: torch.Tensor) -> str:
    """Return a digest as it stands in the record."""
    return f"{int(value.item()) & (2**64 - 1):016x}"

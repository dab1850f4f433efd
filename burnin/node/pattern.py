"""Memory patterns: what each 64-bit word has to hold, computed from its place alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from burnin.node.pattern_names import PATTERN_NAMES

_ALTERNATING = 0x5555555555555555
_MULTIPLIERS = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB)


def _address(index: torch.Tensor, turn: int) -> torch.Tensor:
    """Each word holds its own place; every second turn its complement, so that each cell holds both."""
    return index if turn % 2 == 0 else ~index


def _walking_bit(index: torch.Tensor, turn: int) -> torch.Tensor:
    """One bit set in each word, one further in the next; after 64 turns every bit was set everywhere."""
    return torch.bitwise_left_shift(torch.ones_like(index), (index + turn) % 64)


def _walking_zero(index: torch.Tensor, turn: int) -> torch.Tensor:
    """The complement: one bit clear."""
    return ~_walking_bit(index, turn)


def _checkerboard(index: torch.Tensor, turn: int) -> torch.Tensor:
    """Alternating bits, alternating from word to word, so that each cell differs from its neighbours."""
    return torch.where((index + turn) % 2 == 0, _ALTERNATING, ~_ALTERNATING)


def _inverse(index: torch.Tensor, turn: int) -> torch.Tensor:
    return _checkerboard(index, turn + 1)


def scramble(index: torch.Tensor, seed: int) -> torch.Tensor:
    """Return words that look random and follow from place and seed: a counter-based generator.

    Two rounds of multiply and shift, modulo 2^64, the same on every device.
    """
    word = (index + (seed * 0x9E3779B1 + 1) % 2**61) * _MULTIPLIERS[0]
    # The sign must not be shifted in: it would cancel itself out, and the highest bit would always be clear.
    word = (word ^ ((word >> 30) & ((1 << 34) - 1))) * _MULTIPLIERS[1]
    return word ^ ((word >> 27) & ((1 << 37) - 1))


_MAKERS = (_address, _walking_bit, _walking_zero, _checkerboard, _inverse, scramble)
PATTERNS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = dict(
    zip(PATTERN_NAMES, _MAKERS, strict=True)
)


def expected_words(pattern: str, *, first: int, count: int, turn: int, device: torch.device) -> torch.Tensor:
    """Return what ``count`` words from number ``first`` on have to hold."""
    index = torch.arange(first, first + count, dtype=torch.int64, device=device)
    return PATTERNS[pattern](index, turn)

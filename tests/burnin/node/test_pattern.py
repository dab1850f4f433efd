"""What memory has to hold."""

from __future__ import annotations

import pytest
import torch

from burnin.node.pattern import PATTERNS, expected_words

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", list(PATTERNS))
def test_a_word_follows_from_its_place_alone_wherever_the_chunk_begins(name: str) -> None:
    whole = expected_words(name, first=0, count=1000, turn=3, device=CPU)
    part = expected_words(name, first=700, count=300, turn=3, device=CPU)

    assert torch.equal(whole[700:], part)


@pytest.mark.parametrize("name", list(PATTERNS))
def test_every_bit_of_every_word_is_set_and_clear_in_some_turn(name: str) -> None:
    """A bit that is stuck at either value is seen, at the latest after as many turns as it has bits."""
    ones = zeros = torch.zeros(64, dtype=torch.int64)
    for turn in range(64):
        words = expected_words(name, first=2**40, count=64, turn=turn, device=CPU)
        ones, zeros = ones | words, zeros | ~words
    assert torch.equal(ones, torch.full_like(ones, -1))
    assert torch.equal(zeros, torch.full_like(zeros, -1))


def test_no_two_words_of_the_address_pattern_are_alike_and_random_words_rarely() -> None:
    for name in ("address", "random"):
        words = expected_words(name, first=0, count=1 << 17, turn=2, device=CPU)
        assert len(set(words.tolist())) == 1 << 17


def test_neighbours_on_the_checkerboard_differ_in_every_bit() -> None:
    words = expected_words("checkerboard", first=0, count=9, turn=0, device=CPU)
    inverse = expected_words("inverse checkerboard", first=0, count=9, turn=0, device=CPU)

    assert torch.equal(words[1:], ~words[:-1])
    assert torch.equal(inverse, ~words)


def test_about_half_of_the_random_bits_are_set() -> None:
    words = expected_words("random", first=0, count=4096, turn=9, device=CPU).tolist()
    bits = sum((word & (2**64 - 1)).bit_count() for word in words)

    assert 0.49 < bits / (4096 * 64) < 0.51

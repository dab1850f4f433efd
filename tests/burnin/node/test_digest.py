"""Digests change with any change of what they stand for."""

from __future__ import annotations

import random

import torch

from burnin.node.digest import digest, digest_text, make_weights
from burnin.node.product import flip_bit


def _matrix(seed: int = 1) -> torch.Tensor:
    return torch.randn(96, 96, generator=torch.Generator().manual_seed(seed))


def test_any_single_bit_changes_the_digest() -> None:
    weights, matrix = make_weights(96, torch.device("cpu")), _matrix()
    before = digest_text(digest(matrix, weights))
    place = random.Random(1)
    for _ in range(300):
        changed = matrix.clone()
        flip_bit(changed, address=place.randrange(96 * 96), bit=place.randrange(32))

        assert digest_text(digest(changed, weights)) != before


def test_swapped_rows_columns_and_elements_change_the_digest() -> None:
    weights, matrix = make_weights(96, torch.device("cpu")), _matrix()
    swapped = matrix.clone()
    swapped[0, 0], swapped[5, 7] = matrix[5, 7].item(), matrix[0, 0].item()
    digests = {
        digest_text(digest(m, weights)) for m in (matrix, matrix.T.contiguous(), matrix.flip(0), swapped)
    }

    assert len(digests) == 4


def test_weights_are_the_same_in_every_process_so_that_devices_can_be_compared() -> None:
    first, again = (make_weights(96, torch.device("cpu")) for _ in range(2))

    assert torch.equal(first.rows, again.rows)
    assert bool((first.rows & 1).all()), "odd weights lose no bit"
    assert digest_text(digest(torch.ones(96, 96), first)) == "4759cec430000000"

"""Periods of miscompared addresses."""

from __future__ import annotations

import random

from burnin.node.period import find_period


def test_a_fault_in_every_sixteenth_column_has_that_period_even_when_one_is_masked() -> None:
    addresses = [5 + 16 * index for index in range(40)]
    masked = [address for address in addresses if address != 5 + 16 * 7]

    assert find_period(addresses) == 16
    assert find_period(masked) == 16
    assert find_period(list(reversed(addresses))) == 16


def test_scattered_or_too_few_addresses_have_none() -> None:
    place = random.Random(1)

    assert find_period([place.randrange(10**9) for _ in range(200)]) is None
    assert find_period([3, 19]) is None
    assert find_period([]) is None

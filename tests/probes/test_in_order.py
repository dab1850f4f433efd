"""Columns are put in order as Python's own sort does it, across the edges of stretches as well."""

from __future__ import annotations

import math
import tracemalloc
from array import array
from random import Random

import pytest

from probes.in_order import STRETCH, ascending, order_by

COUNTS = [0, 1, 7, STRETCH, STRETCH + 1, 3 * STRETCH - 5]


@pytest.mark.parametrize("count", COUNTS)
def test_values_ascend_as_sorted_has_them(count: int) -> None:
    random = Random(count)
    values = array("d", (random.choice([random.random(), 0.5, math.inf]) for _ in range(count)))

    assert ascending(values) == array("d", sorted(values))


@pytest.mark.parametrize("count", COUNTS)
def test_positions_are_ordered_by_their_keys_and_equal_ones_stay_as_they_stand(count: int) -> None:
    random = Random(count)
    keys = array("q", (random.randrange(100) for _ in range(count)))

    assert list(order_by(count, keys.__getitem__)) == sorted(range(count), key=keys.__getitem__)


def test_a_long_column_is_never_a_list_of_objects() -> None:
    random = Random(1)
    values = array("d", (random.random() for _ in range(4 * STRETCH)))
    tracemalloc.start()
    ascending(values)
    order_by(len(values), values.__getitem__)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 32 * len(values), "a list of its floats takes that, without the copy to be sorted"

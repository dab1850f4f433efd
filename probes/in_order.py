"""Puts long columns in order a stretch at a time: a list of all would hold an object for each value.

A million numbers take 8 MB in an array and 32 MB as objects, and those are what Python's sort wants.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Sequence
from typing import Any

STRETCH = 65_536


def ascending(values: array[Any]) -> array[Any]:
    """Return the same values from the lowest to the highest."""
    stretches = [
        array(values.typecode, sorted(values[begin : begin + STRETCH])) for begin in _begins(len(values))
    ]
    return stretches[0] if len(stretches) == 1 else array(values.typecode, heapq.merge(*stretches))


def order_by(count: int, key: Callable[[int], Any]) -> array[int]:
    """Return the positions up to ``count`` in ascending order of their keys; equal ones as they stand."""
    stretches = [
        array("I", sorted(range(begin, min(begin + STRETCH, count)), key=key)) for begin in _begins(count)
    ]
    return stretches[0] if len(stretches) == 1 else array("I", heapq.merge(*stretches, key=key))


def _begins(count: int) -> Sequence[int]:
    return range(0, count, STRETCH)

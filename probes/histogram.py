"""Counts of values by size, for figures that are merged: what each load process saw adds up to the whole.

Buckets grow by 1 %, so a quantile is at most 0.5 % off the value that was measured. Written here because the
two libraries at hand cost more than they save: hdrhistogram takes whole numbers within a range fixed
beforehand, wants setuptools at run time and travels as base64; ddsketch had its last release in 2024 and
needs protobuf to travel. This one is exact under merging, and plain JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from probes.json_types import JsonObject

GROWTH = 1.01
# What is smaller counts as zero: in milliseconds a microsecond, the resolution of gaps.
SMALLEST = 1e-3
_PER_LOG = 1 / math.log(GROWTH)
_OFFSET = math.log(SMALLEST)
_ZERO = -1  # the bucket of what is too small
_KNOWN_MAX = 1 << 17  # whole microseconds whose buckets are kept


def _bucket_of(value: float) -> int:
    return _ZERO if value < SMALLEST else int((math.log(value) - _OFFSET) * _PER_LOG)


class _BucketsOfMicroseconds(dict[int, int]):
    """The bucket of each whole count of microseconds, found out once: gaps are the most of all values."""

    def __missing__(self, value_us: int) -> int:
        bucket = _bucket_of(value_us / 1000)
        if len(self) < _KNOWN_MAX:
            self[value_us] = bucket
        return bucket


_buckets_of_us = _BucketsOfMicroseconds()


class Histogram:
    """How many values fell into each bucket; merging is exact, in any order."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.lowest = math.inf
        self.highest = -math.inf

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(self._counts.values())

    def add(self, value: float) -> None:
        """Count one value."""
        self.add_all((value,))

    def add_all(self, values: Iterable[float]) -> None:
        """Count several values."""
        counts = self._counts
        for value in values:
            bucket = _bucket_of(value)
            counts[bucket] = counts.get(bucket, 0) + 1
            if value < self.lowest:
                self.lowest = value
            if value > self.highest:
                self.highest = value

    def add_all_us(self, values_us: Sequence[int]) -> None:
        """Count several values given in whole microseconds, as milliseconds."""
        if not values_us:
            return
        counts = self._counts
        for bucket, count in Counter(map(_buckets_of_us.__getitem__, values_us)).items():
            counts[bucket] = counts.get(bucket, 0) + count
        self.lowest = min(self.lowest, min(values_us) / 1000)
        self.highest = max(self.highest, max(values_us) / 1000)

    def merge(self, other: Histogram) -> None:
        """Add another's counts to these."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.lowest = min(self.lowest, other.lowest)
        self.highest = max(self.highest, other.highest)

    def quantile(self, share: float) -> float | None:
        """Return the value at ``share`` (nearest rank), within 0.5 %; None: there are no values."""
        buckets = sorted(self._counts)
        if not buckets:
            return None
        rank = max(1, math.ceil(share * self.count))
        sums = accumulate(self._counts[bucket] for bucket in buckets)
        bucket = next(b for b, reached in zip(buckets, sums, strict=True) if reached >= rank)
        middle = 0.0 if bucket == _ZERO else math.exp(_OFFSET + (bucket + 0.5) / _PER_LOG)
        return min(max(middle, self.lowest), self.highest)

    def to_json(self) -> JsonObject:
        """Return what JSON and msgpack can carry."""
        if not self._counts:
            return {"buckets": []}
        buckets = [[bucket, count] for bucket, count in sorted(self._counts.items())]
        return {"buckets": buckets, "lowest": self.lowest, "highest": self.highest}


def histogram_from_json(data: JsonObject) -> Histogram:
    """Read a histogram back."""
    histogram = Histogram()
    for bucket, count in data["buckets"]:
        histogram._counts[int(bucket)] = int(count)
    histogram.lowest = float(data.get("lowest", math.inf))
    histogram.highest = float(data.get("highest", -math.inf))
    return histogram

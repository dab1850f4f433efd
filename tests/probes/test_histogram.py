"""Histograms that merge: exact in any order, and within 1 % of what was measured."""

from __future__ import annotations

import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.histogram import SMALLEST, Histogram, histogram_from_json
from probes.metric import percentile

VALUES = st.lists(st.floats(min_value=0, max_value=1e7, allow_nan=False), max_size=60)


def of(*lists: list[float]) -> Histogram:
    histogram = Histogram()
    for values in lists:
        histogram.add_all(values)
    return histogram


def merged(*parts: Histogram) -> dict[str, object]:
    whole = Histogram()
    for part in parts:
        whole.merge(part)
    return whole.to_json()


@given(VALUES, VALUES, VALUES)
@settings(deadline=None, max_examples=100)
def test_merging_parts_in_any_order_or_grouping_equals_counting_all_at_once(
    a: list[float], b: list[float], c: list[float]
) -> None:
    at_once = of(a, b, c).to_json()
    first = of(a)
    first.merge(of(b))

    assert merged(of(a), of(b), of(c)) == at_once
    assert merged(of(c), of(a), of(b)) == at_once
    assert merged(first, of(c)) == at_once


@given(VALUES.filter(bool), st.floats(min_value=0, max_value=1))
@settings(deadline=None, max_examples=200)
def test_a_quantile_is_within_one_percent_of_the_measured_value_at_that_rank(
    values: list[float], share: float
) -> None:
    found = of(values).quantile(share)

    assert found == pytest.approx(percentile(values, share), rel=0.01, abs=SMALLEST)


@given(st.lists(st.integers(min_value=0, max_value=2**32 - 1), max_size=60))
@settings(deadline=None, max_examples=100)
def test_whole_microseconds_are_counted_as_the_milliseconds_that_they_are(values_us: list[int]) -> None:
    counted = Histogram()
    counted.add_all_us(values_us)

    assert counted.to_json() == of([value / 1000 for value in values_us]).to_json()


@given(VALUES)
@settings(deadline=None, max_examples=50)
def test_a_histogram_survives_json_whole(values: list[float]) -> None:
    histogram = of(values)
    again = histogram_from_json(json.loads(json.dumps(histogram.to_json())))

    assert again.to_json() == histogram.to_json()
    assert again.count == len(values)
    assert again.quantile(0.5) == histogram.quantile(0.5)


def test_nothing_measured_has_no_quantile_and_takes_no_part_in_a_merge() -> None:
    histogram = of([5.0])
    histogram.merge(Histogram())

    assert Histogram().quantile(0.99) is None
    assert (histogram.count, histogram.lowest, histogram.quantile(0)) == (1, 5.0, 5.0)


def test_a_million_values_over_nine_decades_stay_small_and_cheap() -> None:
    chance = random.Random(1)
    values = [10 ** chance.uniform(-3, 6) for _ in range(100_000)]
    histogram = Histogram()
    begun_s = time.process_time()
    for _ in range(10):
        histogram.add_all(values)
    cpu_us = time.process_time() - begun_s  # of a million values: seconds are microseconds each

    assert histogram.count == 1_000_000
    assert len(json.dumps(histogram.to_json())) < 40_000
    assert cpu_us < 5

"""Tests of a share, against exact sums; their combination over several promises."""

from __future__ import annotations

import pytest

from probes.binomial import binomial_cdf
from probes.incomplete_beta import incomplete_beta
from probes.share_test import chance_of_so_few, chance_of_so_many, holm


@pytest.mark.parametrize("total", [1, 59, 1000])
@pytest.mark.parametrize("allowed", [0.001, 0.05, 0.5])
def test_at_whole_numbers_the_chances_are_the_binomial_sums(total: int, allowed: float) -> None:
    for bad in {0, 1, total // 20, total // 2, total}:
        assert chance_of_so_few(bad, total, allowed=allowed) == pytest.approx(
            binomial_cdf(bad, total, allowed), abs=1e-9
        )
        assert chance_of_so_many(bad, total, allowed=allowed) == pytest.approx(
            1 - binomial_cdf(bad - 1, total, allowed), abs=1e-9
        )


def test_between_whole_numbers_they_lie_between() -> None:
    low, middle, high = (chance_of_so_few(bad, 100, allowed=0.05) for bad in (2, 2.5, 3))

    assert low < middle < high


def test_a_million_values_are_no_trouble() -> None:
    assert incomplete_beta(0.05, 50_000, 950_001) == pytest.approx(0.5, abs=0.01)


def test_nothing_counted_says_nothing() -> None:
    assert chance_of_so_few(0, 0, allowed=0.05) == chance_of_so_many(0, 0, allowed=0.05) == 1.0


def test_holm_weighs_the_smallest_most_and_never_turns_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.9]) == [1.0, 1.0]

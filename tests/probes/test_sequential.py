"""Peeking costs nothing: the chance of a wrong verdict at any look, summed exactly over all ways to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probes.sequential import chance_of_so_few_ever, chance_of_so_many_ever, share_interval
from probes.share_test import chance_of_so_few


def chance_of_ever(test: Callable[[int, int], bool], *, share: float, looks: int) -> float:
    """Return how probable it is that a test, made after each request, says so at least once."""
    alive, crossed = {0: 1.0}, 0.0
    for total in range(1, looks + 1):
        following: dict[int, float] = {}
        for bad, probability in alive.items():
            for now, step in ((bad, 1 - share), (bad + 1, share)):
                following[now] = following.get(now, 0.0) + probability * step
        alive = {}
        for bad, probability in following.items():
            if test(bad, total):
                crossed += probability
            elif probability > 1e-12:
                alive[bad] = probability
    return crossed


@pytest.mark.parametrize("allowed", [0.05, 0.2])
def test_at_the_limit_a_wrong_verdict_at_any_of_400_looks_is_at_most_as_probable_as_stated(
    allowed: float,
) -> None:
    def passes(bad: int, total: int) -> bool:
        return chance_of_so_few_ever(bad, total, allowed=allowed) <= 0.05

    def fails(bad: int, total: int) -> bool:
        return chance_of_so_many_ever(bad, total, allowed=allowed) <= 0.05

    assert 0 < chance_of_ever(passes, share=allowed, looks=400) <= 0.05
    assert 0 < chance_of_ever(fails, share=allowed, looks=400) <= 0.05


def test_a_fixed_test_made_after_each_request_errs_far_more_often_than_it_says() -> None:
    def passes(bad: int, total: int) -> bool:
        return chance_of_so_few(bad, total, allowed=0.2) <= 0.05

    assert chance_of_ever(passes, share=0.2, looks=400) > 0.15


def test_away_from_the_limit_it_decides_early() -> None:
    assert (
        chance_of_ever(
            lambda bad, total: chance_of_so_few_ever(bad, total, allowed=0.2) <= 0.05, share=0.1, looks=300
        )
        > 0.95
    )
    assert (
        chance_of_ever(
            lambda bad, total: chance_of_so_many_ever(bad, total, allowed=0.2) <= 0.05, share=0.35, looks=300
        )
        > 0.95
    )


def test_an_interval_holds_at_all_looks_together() -> None:
    def misses(bad: int, total: int) -> bool:
        low, high = share_interval(bad, total, confidence=0.9)
        return not low <= 0.2 <= high

    assert chance_of_ever(misses, share=0.2, looks=120) <= 0.1
    assert share_interval(0, 0, confidence=0.9) == (0.0, 1.0)
    assert share_interval(0, 500, confidence=0.95)[0] == 0.0
    assert share_interval(0, 500, confidence=0.95)[1] < 0.02

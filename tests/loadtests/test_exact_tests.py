"""Exact tests agree with what is known of them, and err no more often than they say."""

from __future__ import annotations

import math
import random

import pytest

from loadtests.rules.exact_tests import (
    Stratum,
    holm,
    p_more_than_others,
    p_more_wrong,
    share_at_least,
    share_at_most,
)


def pairs(*, lost: int, won: int, both_right: int = 0, both_wrong: int = 0) -> list[Stratum]:
    kinds = [(0, 1, lost), (1, 0, won), (0, 0, both_right), (1, 1, both_wrong)]
    return [Stratum(idle_wrong=a, idle=1, load_wrong=b, load=1) for a, b, n in kinds for _ in range(n)]


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (9, 2), (3, 3), (0, 4), (0, 0)])
def test_pairs_give_mcnemars_exact_test_whatever_agrees(lost: int, won: int) -> None:
    wanted = sum(math.comb(lost + won, k) for k in range(lost, lost + won + 1)) / 2 ** (lost + won)

    assert p_more_wrong(pairs(lost=lost, won=won)) == pytest.approx(wanted)
    assert p_more_wrong(pairs(lost=lost, won=won, both_right=70, both_wrong=9)) == pytest.approx(wanted)


def test_one_task_asked_often_gives_fishers_exact_test() -> None:
    stratum = Stratum(idle_wrong=1, idle=10, load_wrong=6, load=10)

    assert p_more_wrong([stratum]) == pytest.approx(p_more_than_others(6, 10, bad_all=7, asked_all=20))
    assert p_more_wrong([stratum]) == pytest.approx(0.0286, abs=1e-4)


def test_without_an_effect_load_is_accused_no_more_often_than_stated() -> None:
    chance = random.Random(1)
    accused = 0
    for _ in range(600):
        strata = []
        for _ in range(40):
            p = chance.choice((0.02, 0.3, 0.9))
            load = [chance.random() < p for _ in range(4)]
            strata.append(Stratum(idle_wrong=int(chance.random() < p), idle=1, load_wrong=sum(load), load=4))
        accused += p_more_wrong(strata) <= 0.05

    assert accused / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
    assert accused > 3  # it can accuse at all: a test that never did would prove nothing


def test_bounds_of_a_share_are_those_of_clopper_and_pearson() -> None:
    assert share_at_most(0, 183, doubt=0.025) == pytest.approx(1 - 0.025 ** (1 / 183))
    assert share_at_most(3, 3, doubt=0.05) == 1.0
    assert share_at_most(2, 20, doubt=0.025) == pytest.approx(0.31698, abs=1e-4)
    assert share_at_least(2, 20, doubt=0.025) == pytest.approx(0.01235, abs=1e-4)
    assert share_at_least(0, 0, doubt=0.05) == 0.0


def test_holm_refuses_step_by_step() -> None:
    assert holm({"a": 0.01, "b": 0.02, "c": 0.2}, doubt=0.05) == {"a", "b"}
    assert holm({"a": 0.02, "b": 0.02, "c": 0.02}, doubt=0.05) == set()

"""Slow devices, noisy neighbours, and load that was never reached."""

from __future__ import annotations

import random

import pytest

from burnin.node.seeding import SLOW_FACTOR
from burnin.rules.speed import RATIO_MIN, judge_load, judge_speed
from probes.outcome import Outcome

CPU, GPU = RATIO_MIN["cpu"], RATIO_MIN["cuda"]


def test_a_gpu_15_percent_behind_seven_siblings_fails_and_the_siblings_pass() -> None:
    rates = {f"GPU-{n}": [790.0 + n] * 10 for n in range(7)} | {"GPU-7": [675.0] * 10}
    found = {
        name: judge_speed(name, own, {n: r for n, r in rates.items() if n != name}, ratio_min=GPU).outcome
        for name, own in rates.items()
    }

    assert found.pop("GPU-7") is Outcome.FAIL
    assert set(found.values()) == {Outcome.PASS}


@pytest.mark.parametrize("seed", range(50))
def test_a_core_that_its_neighbour_slows_to_a_half_passes_and_a_seeded_slow_one_fails(seed: int) -> None:
    chance = random.Random(seed)
    quiet = [0.08 * chance.uniform(0.9, 1.0) for _ in range(11)]
    disturbed = [0.08 * chance.uniform(0.5, 1.0) for _ in range(11)]
    slow = [rate / SLOW_FACTOR for rate in quiet]

    assert judge_speed("cpu:1", disturbed, {"cpu:0": quiet}, ratio_min=CPU).outcome is Outcome.PASS
    assert judge_speed("cpu:1", slow, {"cpu:0": disturbed}, ratio_min=CPU).outcome is Outcome.FAIL
    assert judge_speed("cpu:0", disturbed, {"cpu:1": slow}, ratio_min=CPU).outcome is Outcome.PASS


def test_one_spoilt_window_does_not_decide() -> None:
    rates = [700.0] * 8 + [20.0]

    assert judge_speed("GPU-0", rates, {"GPU-1": [705.0] * 9}, ratio_min=GPU).outcome is Outcome.PASS


def test_too_few_windows_of_the_device_or_of_every_sibling_leave_it_undecided() -> None:
    assert judge_speed("a", [1.0] * 2, {"b": [1.0] * 9}, ratio_min=GPU).outcome is Outcome.INCONCLUSIVE
    assert judge_speed("a", [1.0] * 9, {"b": [1.0] * 2}, ratio_min=GPU).outcome is Outcome.INCONCLUSIVE


def test_without_any_sibling_it_does_not_apply_and_is_no_pass() -> None:
    assert judge_speed("a", [1.0] * 9, {}, ratio_min=GPU).outcome is None


def test_a_device_that_was_hardly_loaded_has_shown_nothing() -> None:
    assert judge_load("a", [5.0] * 9, busy_pct_min=15).outcome is Outcome.INCONCLUSIVE
    assert judge_load("a", [], busy_pct_min=15).outcome is Outcome.INCONCLUSIVE
    assert judge_load("a", [40.0] * 9, busy_pct_min=15).outcome is Outcome.PASS

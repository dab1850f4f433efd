"""What a PASS proves: three over the time under checked load; no bound where an error was seen."""

from __future__ import annotations

import math

import pytest

from burnin.rules.bound import Load, judge_bound
from probes.outcome import Outcome


def _load(loaded_s: float, elements: int = 10**9, every: int = 1, stage: str = "matmul") -> Load:
    return Load(stage=stage, loaded_s=loaded_s, checked_elements=elements, every=every)


def test_no_error_in_an_hour_excludes_three_an_hour_at_95_per_cent() -> None:
    found = judge_bound("GPU-1", [_load(1800), _load(1800, stage="memory")], errors=[])

    assert found.outcome is Outcome.PASS
    assert found.evidence["per_gpu_hour_max"] == pytest.approx(3.0)
    assert found.evidence["checked_elements"] == 2 * 10**9
    assert (
        "no error in 1 GPU-hours (2,000,000,000 elements checked): fewer than 3 per GPU-hour"
        in found.observed
    )
    assert math.exp(-found.evidence["per_gpu_hour_max"] * found.evidence["gpu_hours"]) < 0.05


def test_load_under_which_nothing_was_checked_proves_nothing() -> None:
    mixed = judge_bound("GPU-1", [_load(3600), _load(3600, elements=0)], errors=[])
    unchecked = judge_bound("GPU-1", [_load(3600, elements=0)], errors=[])

    assert mixed.evidence["gpu_hours"] == 1
    assert unchecked.outcome is Outcome.INCONCLUSIVE
    assert judge_bound("GPU-1", [], errors=[]).outcome is Outcome.INCONCLUSIVE


def test_products_of_which_every_tenth_was_checked_bound_lone_errors_ten_times_less_well() -> None:
    found = judge_bound("GPU-1", [_load(3600, every=10, stage="power")], errors=[])

    assert found.evidence["per_gpu_hour_max"] == pytest.approx(3)
    assert found.evidence["per_gpu_hour_max_single_product"] == pytest.approx(30)
    assert "single product fewer than 30" in found.observed


def test_where_an_error_was_seen_no_bound_is_stated() -> None:
    found = judge_bound("GPU-1", [_load(3600)], errors=["exact"])

    assert found.outcome is None
    assert "per_gpu_hour_max" not in found.evidence


def test_what_a_few_seconds_exclude_is_written_out_and_not_as_a_power_of_ten() -> None:
    found = judge_bound("GPU-1", [_load(6.2)], errors=[])

    assert "fewer than 1,742 per GPU-hour at 95 %" in found.observed

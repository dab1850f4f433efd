"""How far chance reaches in a group of GPUs, told from the group itself."""

from __future__ import annotations

import pytest

from burnin.fleet.outliers import TAIL_USUAL, Group, critical_value, tail_of
from probes.student_t import quantile

NORMAL = 30.0  # degrees of freedom from which a Student's t is as good as the bell


def _group(count: int, freedom: float) -> Group:
    """Return a group whose lower quantiles are just those of a Student's t, its quarter 1 % down."""
    return Group(
        number=1,
        level="gpu",
        metric="tflops",
        unit="",
        model="H",
        driver="1",
        count=count,
        hosts=count // 8,
        median=700.0,
        quarter=693.0,
        fortieth=700.0 - 7.0 * quantile(0.025, freedom) / quantile(0.25, freedom),
        drop=0.1,
    )


@pytest.mark.parametrize("count", [64, 512])
def test_a_small_fleet_with_a_heavy_tail_is_not_taken_for_a_usual_one(count: int) -> None:
    assert tail_of(_group(count, 4.0)) < TAIL_USUAL


@pytest.mark.parametrize(("count", "least"), [(64, 3.0), (512, TAIL_USUAL)])
def test_a_small_fleet_like_the_bell_keeps_its_line_and_gets_no_closer_one(count: int, least: float) -> None:
    group = _group(count, NORMAL)

    assert least <= tail_of(group) <= TAIL_USUAL
    assert critical_value(group, 1e-5) < critical_value(_group(100_000, NORMAL), 1e-5)

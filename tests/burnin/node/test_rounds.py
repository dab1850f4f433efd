"""Which devices work at the same time, and with whom."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.node.rounds import ALONE, TOGETHER, disjoint_pairs, plan_rounds


@given(st.integers(min_value=2, max_value=17))
def test_every_pair_meets_once_and_no_device_has_two_partners_in_a_round(count: int) -> None:
    devices = [f"d{index}" for index in range(count)]

    rounds = disjoint_pairs(devices)

    assert sorted(pair for pairs in rounds for pair in pairs) == sorted(combinations(devices, 2))
    assert len(rounds) == count - 1 + count % 2
    for pairs in rounds:
        busy = [device for pair in pairs for device in pair]
        assert len(busy) == len(set(busy))


def test_links_are_tried_pair_by_pair_and_then_all_at_once() -> None:
    rounds = plan_rounds("links", ["a", "b", "c", "d"], length_s=9)

    assert [r.phase for r in rounds] == [ALONE] * 6 + [TOGETHER] * 3
    assert [len(r.groups) for r in rounds] == [1] * 6 + [2] * 3
    assert sum(r.length_s for r in rounds) == pytest.approx(9)
    assert all(r.is_joined for r in rounds)


def test_one_pair_is_not_tried_twice_in_the_same_way() -> None:
    assert [r.phase for r in plan_rounds("links", ["a", "b"], length_s=1)] == [TOGETHER]


@pytest.mark.parametrize("stage", ["links", "allreduce"])
def test_what_takes_two_has_no_round_for_one(stage: str) -> None:
    assert plan_rounds(stage, ["a"], length_s=1) == []
    assert plan_rounds(stage, [], length_s=1) == []


def test_matmul_goes_from_device_to_device_and_then_to_all() -> None:
    rounds = plan_rounds("matmul", ["a", "b"], length_s=10)

    assert [(r.phase, r.groups) for r in rounds] == [
        (ALONE, (("a",),)),
        (ALONE, (("b",),)),
        (TOGETHER, (("a",), ("b",))),
    ]
    assert sum(r.length_s for r in rounds) == pytest.approx(10)
    assert [r.phase for r in plan_rounds("matmul", ["a"], length_s=10)] == [TOGETHER]


def test_memory_and_power_load_all_devices_at_once() -> None:
    for stage in ("memory", "power"):
        (only,) = plan_rounds(stage, ["a", "b"], length_s=5)

        assert (only.phase, only.groups, only.length_s) == (TOGETHER, (("a",), ("b",)), 5)

"""The lab's autoscaler: its policy over time, and the ways in which it fails on purpose."""

from __future__ import annotations

import itertools

import pytest

from experiments.lab.autoscaler import FAULTS, Autoscaler, ScalePlan


def walk(fault: str = "", *, busy_s: int = 60, idle_s: int = 60) -> list[int]:
    """Return the replicas wanted each second: 2 requests under way, then 20, then 2 again."""
    plan = ScalePlan(replicas_min=1, replicas_max=3, in_flight_target=5, up_s=3, down_s=10, fault=fault)
    scaler, wanted, course = Autoscaler(plan), 1, []
    for second in range(10 + busy_s + idle_s):
        in_flight = 20 if 10 <= second < 10 + busy_s else 2
        wanted = scaler.want(now_s=100.0 + second, in_flight=in_flight, wanted=wanted)
        course.append(wanted)
    return course


def test_replicas_follow_the_load_after_their_delays_and_stay_within_their_bounds() -> None:
    course = walk()

    assert course[:13] == [1] * 13
    assert course[15:70] == [3] * 55
    assert course[84:] == [1] * (len(course) - 84)
    assert set(course) <= {1, 2, 3}


def test_a_burst_of_a_moment_starts_nothing() -> None:
    scaler = Autoscaler(ScalePlan(replicas_min=1, replicas_max=3, in_flight_target=5, up_s=0))
    levels = [scaler.want(now_s=t / 10, in_flight=9 if t == 15 else 3, wanted=1) for t in range(30)]

    assert levels == [1] * 30


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one(fault: str) -> None:
    course, sound = walk(fault), walk()

    assert course != sound
    assert course[:10] == sound[:10]


def test_the_faults_do_what_they_say() -> None:
    assert set(walk("never-up")) == {1}
    assert walk("late-up")[10:40] == [1] * 30
    assert walk("late-up")[45] == 3
    assert walk("never-down")[-1] == 3
    flapping = walk("flap")[10:70]
    assert sum(before > after for before, after in itertools.pairwise(flapping)) >= 3

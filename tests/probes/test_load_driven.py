"""Whether load makes requests slow, and for how many of them that counts as one."""

from __future__ import annotations

import random

from probes.load_driven import count_under_way, inflation_by_load


def test_under_way_are_those_that_began_before_and_had_not_ended() -> None:
    assert list(count_under_way([0, 10, 20, 30], [25, 15, 40, 50])) == [0, 1, 1, 1]


def test_a_load_that_makes_nothing_slow_takes_nothing_from_the_evidence() -> None:
    chance = random.Random(1)
    under_way = [5 + index // 50 % 2 * 5 for index in range(1000)]
    scores = [chance.random() for _ in under_way]

    assert inflation_by_load(scores, under_way, share=0.05) == 1.0


def test_where_the_slowest_come_under_load_its_times_count_as_one() -> None:
    chance = random.Random(1)
    under_way = [5 + int(chance.random() < 0.1) for _ in range(40)]
    under_way += [5 + index // 50 % 2 * 5 for index in range(1000)]
    scores = [count / 100 + chance.random() / 50 for count in under_way]

    assert inflation_by_load(scores, under_way, share=0.05) > 20


def test_too_few_requests_or_alike_ones_show_no_link() -> None:
    assert inflation_by_load([1.0, 2.0], [0, 1], share=0.05) == 1.0
    assert inflation_by_load([1.0] * 100, list(range(100)), share=0.05) == 1.0
    assert inflation_by_load([float(i) for i in range(100)], [0] * 100, share=0.05) == 1.0
    assert inflation_by_load([1.0] * 100, [], share=0.05) == 1.0

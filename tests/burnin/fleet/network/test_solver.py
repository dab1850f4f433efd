from __future__ import annotations

import math
import random

from burnin.fleet.network.reading import BusbwFloor, Reading, read_all
from burnin.fleet.network.solver import interval, weigh
from burnin.fleet.network.trial import FULL, Sweep, Trial, TrialResult
from burnin.fleet.topology import Topology

SIZE_BYTES = 1 << 30


def _topology(hosts: int) -> Topology:
    names = tuple(f"n{i}" for i in range(hosts))
    return Topology(
        hosts=names, groups=(names,), nvlink_domain={}, fabric={}, rails={}, model={}, rails_count=0
    )


def _result(
    number: int,
    hosts: tuple[str, ...],
    busbw_gbps: float,
    *,
    worst: float = 0.96,
    state: str = "done",
    is_complete: bool = True,
    size_bytes: int = SIZE_BYTES,
    transport: str = "NET/IB",
    wrong: int = 0,
) -> TrialResult:
    sweep = Sweep(
        collective="all_reduce",
        size_bytes=size_bytes,
        ranks=8 * len(hosts),
        iterations=20,
        busbw_gbps=busbw_gbps,
        busbw_worst_gbps=busbw_gbps * worst,
        wrong_elements=wrong,
    )
    return TrialResult(
        trial=Trial(id=f"t{number}", round=1, design="tournament", hosts=hosts, path=FULL),
        state=state,
        sweeps=(sweep,) if state == "done" else (),
        is_complete=is_complete,
        transport=transport,
    )


def _read(results: list[TrialResult], floors: tuple[BusbwFloor, ...] = ()) -> list[Reading]:
    return read_all(results, _topology(20), floors)


def _healthy(count: int = 6) -> list[TrialResult]:
    return [_result(100 + n, (f"n{10 + n}", f"n{11 + n}"), 400 + n % 3) for n in range(count)]


def test_a_slow_trial_is_seen_even_where_most_trials_alike_are_slow() -> None:
    slow = [_result(n, (f"n{n}", f"n{n + 1}"), 250 + 10 * n) for n in range(6)]

    readings = _read([*slow, *_healthy(3)])

    assert [r.is_bad for r in readings] == [True] * 6 + [False] * 3


def test_two_trials_alone_judge_nobody() -> None:
    readings = _read([_result(1, ("n1", "n2"), 400), _result(2, ("n3", "n4"), 100)])

    assert [(r.level, r.is_bad, r.is_good) for r in readings] == [(None, False, False)] * 2


def test_a_floor_judges_where_nothing_is_alike() -> None:
    floor = BusbwFloor(
        collective="all_reduce",
        size_bytes=SIZE_BYTES,
        hosts_min=2,
        hosts_max=2,
        busbw_gbps_min=350,
        source="test",
    )

    readings = _read([_result(1, ("n1", "n2"), 400), _result(2, ("n3", "n4"), 300)], (floor,))

    assert [r.is_good for r in readings] == [True, False]
    assert [r.is_bad for r in readings] == [False, True]


def test_a_partial_sweep_says_nothing() -> None:
    reading = _read([*_healthy(), _result(1, ("n1", "n2"), 100, is_complete=False)])[-1]

    assert (reading.level, reading.is_bad, reading.is_good) == (None, False, False)


def test_one_iteration_far_below_is_seen_though_the_mean_is_well() -> None:
    reading = _read([*_healthy(), _result(1, ("n1", "n2"), 400, worst=0.4)])[-1]

    assert (reading.is_bad, reading.dip, reading.is_good) == (False, True, False)


def test_sockets_and_wrong_elements_are_bad_at_full_speed() -> None:
    readings = _read(
        [
            *_healthy(),
            _result(1, ("n1", "n2"), 400, transport="NET/Socket"),
            _result(2, ("n3", "n4"), 400, wrong=1),
        ]
    )

    assert [r.fault for r in readings[-2:]] == ["fell back to sockets", "wrong results"]


def test_small_messages_may_differ_by_more() -> None:
    small = [_result(n, (f"n{n}", f"n{n + 1}"), 1.0, size_bytes=8) for n in range(5)]

    readings = _read([*small, _result(9, ("n7", "n8"), 0.7, size_bytes=8)])

    assert not any(r.is_bad for r in readings)


def test_the_slow_host_is_accused_and_its_partners_are_not() -> None:
    results = [
        *_healthy(),
        _result(1, ("n1", "n2"), 300),
        _result(2, ("n1", "n3"), 302),
        _result(3, ("n2", "n4"), 400),
        _result(4, ("n3", "n5"), 400),
    ]

    evidence = weigh(_read(results), {})

    assert [part.name for part in evidence.accused] == ["n1"]


def test_a_host_that_is_bad_each_time_and_never_alike_is_accused() -> None:
    levels = [370, 330, 290, 250]  # a link that dips so often that no trial goes without
    trials = [_result(n, ("n1", f"n{10 + n}"), level) for n, level in enumerate(levels)]

    evidence = weigh(_read([*_healthy(), *trials]), {})

    assert [part.name for part in evidence.accused] == ["n1"]
    assert len(evidence.solo[next(iter(evidence.accused))]) == len(levels)


def test_one_bad_trial_accuses_nobody() -> None:
    results = [*_healthy(), _result(1, ("n1", "n10"), 300)]

    assert weigh(_read(results), {}).accused == {}


def test_two_bad_trials_with_the_same_partner_accuse_nobody() -> None:
    results = [*_healthy(), _result(1, ("n1", "n10"), 300), _result(2, ("n10", "n1"), 300)]

    assert weigh(_read(results), {}).accused == {}


def test_a_group_that_failed_early_does_not_clear_who_hangs() -> None:
    results = [
        *_healthy(),
        _result(1, ("n1", "n2", "n3"), 0, state="failed"),
        _result(2, ("n1", "n10"), 0, state="hung"),
        _result(3, ("n1", "n11"), 0, state="hung"),
    ]

    assert [part.name for part in weigh(_read(results), {}).accused] == ["n1"]


def test_the_interval_holds_the_true_slowdown_about_as_often_as_it_says() -> None:
    rng = random.Random(5)
    noise, level, inside = 0.012, math.log(1.4), 0
    for _ in range(2000):
        reference = rng.gauss(0, noise / 3)
        levels = [level + rng.gauss(0, noise) - reference for _ in range(3)]
        _, low, high = interval(levels, noise=noise)
        inside += low <= 1.4 <= high

    assert 0.93 <= inside / 2000 <= 0.999

"""The schedule of arrivals: seeded, absolute, and the same whatever number of workers walks it."""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest
from pydantic import TypeAdapter

from loadtests.spec.arrival import ArrivalsSpec
from loadtests.traffic.arrivals import Arrivals, Think, arrival_times_s, share_of


def made(kind: str, **keys: object) -> Arrivals:
    spec = TypeAdapter(ArrivalsSpec).validate_python({"kind": kind, **keys})
    arrivals: Arrivals = spec.to_arrivals()
    return arrivals


POISSON = made("poisson", rate_per_s=50)


def times(arrivals: Arrivals, *, duration_s: float = 100.0, seed: int = 3) -> list[float]:
    return list(arrival_times_s(arrivals, duration_s=duration_s, seed=seed))


def test_constant_arrivals_are_even_and_do_not_drift() -> None:
    found = times(made("constant", rate_per_s=10), duration_s=1000)

    assert len(found) == 10_000
    assert found[-1] == 999.9


def test_poisson_arrivals_have_the_rate_and_exponential_gaps() -> None:
    found = times(POISSON)
    gaps = [after - before for before, after in zip([0.0, *found], found, strict=False)]
    per_second = [sum(int(t) == second for t in found) for second in range(100)]

    assert len(found) / 100 == pytest.approx(50, rel=0.05)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(1, abs=0.06)
    # Dispersion of counts: 1 for Poisson, 0 for even arrivals; 100 windows give it to about 0.28.
    assert statistics.variance(per_second) / statistics.mean(per_second) == pytest.approx(1, abs=0.45)


def test_the_seed_alone_decides_the_schedule() -> None:
    assert times(POISSON) == times(POISSON)
    assert times(POISSON) != times(POISSON, seed=4)


KINDS = {
    "constant": made("constant", rate_per_s=50),
    "poisson": POISSON,
    "gamma": made("gamma", rate_per_s=50, cv=2),
    "ramp": made("ramp", from_per_s=0, to_per_s=100, ramp_s=100),
    "steps": made(
        "steps",
        steps=[
            {"rate_per_s": 90, "for_s": 20},
            {"rate_per_s": 0, "for_s": 10},
            {"rate_per_s": 40, "for_s": 80},
        ],
    ),
    "spike": made("spike", rate_per_s=30, spike_per_s=300, at_s=40, for_s=5),
    "diurnal": made("diurnal", rate_per_s=50, swing=1, period_s=50, peak_at_s=20),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_shares_of_all_workers_make_up_the_one_schedule(kind: str, workers: int) -> None:
    shares = [list(share_of(times(KINDS[kind]), worker=k, workers=workers)) for k in range(workers)]

    merged = sorted(arrival for share in shares for arrival in share)

    assert len(merged) > 3000
    assert merged == list(enumerate(times(KINDS[kind])))
    assert [t for _, t in merged] == sorted(t for _, t in merged)


@pytest.mark.parametrize(("kind", "cv"), [("poisson", 1.0), ("gamma", 2.0)])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_merged_arrivals_are_as_dispersed_as_their_process(kind: str, cv: float, workers: int) -> None:
    shares = [share_of(times(KINDS[kind], duration_s=400), worker=k, workers=workers) for k in range(workers)]
    merged = sorted(t for share in shares for _, t in share)
    gaps = [after - before for before, after in pairwise(merged)]
    counts = [0] * 400
    for t in merged:
        counts[int(t)] += 1

    assert len(merged) / 400 == pytest.approx(50, rel=0.06)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(cv, rel=0.06)
    # Counts in windows of many gaps have cv² as their index of dispersion; 400 windows give it to about 7 %.
    assert statistics.variance(counts) / statistics.mean(counts) == pytest.approx(cv**2, rel=0.3)


def in_windows(found: list[float], *, width_s: float, windows: int) -> list[int]:
    return [sum(k * width_s <= t < (k + 1) * width_s for t in found) for k in range(windows)]


def test_rates_that_change_are_integrated_exactly() -> None:
    ramp = made("ramp", process="constant", from_per_s=0, to_per_s=20, ramp_s=10)
    steps = made(
        "steps",
        process="constant",
        steps=[
            {"rate_per_s": 3, "for_s": 10},
            {"rate_per_s": 0, "for_s": 10},
            {"rate_per_s": 7, "for_s": 10},
        ],
    )
    spike = made("spike", process="constant", rate_per_s=2, spike_per_s=50, at_s=10, for_s=10)
    diurnal = made("diurnal", process="constant", rate_per_s=10, swing=1, period_s=40, peak_at_s=10)

    assert in_windows(times(ramp), width_s=5, windows=4) == [25, 75, 100, 100]
    assert in_windows(times(steps), width_s=10, windows=4) == [30, 0, 70, 0]
    assert in_windows(times(spike), width_s=10, windows=3) == [20, 500, 20]
    up, down, *_ = in_windows(times(diurnal), width_s=20, windows=4)
    # The integral of 10 (1 + cos) over its upper half is 200 + 400 / pi.
    assert (up, down) == (pytest.approx(327.3, abs=1), pytest.approx(72.7, abs=1))


def test_a_ramp_from_nothing_has_its_arrivals_where_the_square_root_wants_them() -> None:
    found = times(made("ramp", process="constant", from_per_s=0, to_per_s=2, ramp_s=100))

    assert found == pytest.approx([(100 * k) ** 0.5 for k in range(100)])


def test_the_users_of_a_closed_loop_begin_evenly() -> None:
    assert times(made("closed", users=4, start_over_s=2)) == [0.0, 0.5, 1.0, 1.5]


def test_think_times_depend_on_seed_user_and_turn_alone_and_have_their_mean() -> None:
    think = Think(kind="exponential", mean_s=2.0)
    drawn = [think.draw_s(seed=1, chain=chain, turn=turn) for chain in range(40) for turn in range(50)]

    assert drawn[0] == think.draw_s(seed=1, chain=0, turn=0)
    assert len(set(drawn)) == 2000
    assert statistics.mean(drawn) == pytest.approx(2, rel=0.08)

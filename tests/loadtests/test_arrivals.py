"""The schedule of arrivals: seeded, absolute, and the same whatever number of workers walks it."""

from __future__ import annotations

import statistics

import pytest

from loadtests.arrivals import arrival_times_s, share_of
from loadtests.workload import Arrivals

POISSON = Arrivals(kind="poisson", rate_per_s=50)


def times(arrivals: Arrivals, *, duration_s: float = 100.0, seed: int = 3) -> list[float]:
    return list(arrival_times_s(arrivals, duration_s=duration_s, seed=seed))


def test_constant_arrivals_are_even_and_do_not_drift() -> None:
    found = times(Arrivals(kind="constant", rate_per_s=10), duration_s=1000)

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


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_shares_of_all_workers_make_up_the_one_schedule(workers: int) -> None:
    shares = [list(share_of(iter(times(POISSON)), worker=k, workers=workers)) for k in range(workers)]

    assert sorted(arrival for share in shares for arrival in share) == list(enumerate(times(POISSON)))

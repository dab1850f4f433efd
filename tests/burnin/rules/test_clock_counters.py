"""Which of the two places of the throttle counters is believed."""

from __future__ import annotations

import pytest

from burnin.rules.clock_counters import believed_counters

SECOND = 10**9


def _at(first: int, *added: int) -> dict[str, tuple[float, float]]:
    return {f"clock_field_{first + n}": (5 * SECOND, 5 * SECOND + value) for n, value in enumerate(added)}


def _smoothing() -> dict[str, tuple[float, float]]:
    """Power smoothing where the counters used to be: small constants."""
    return {"clock_field_251": (0, 0), "clock_field_252": (1, 1), "clock_field_253": (0, 0)}


@pytest.mark.parametrize(
    ("driver", "counters", "place"),
    [
        (570, _at(251, SECOND, 0, 0), "251"),
        (580, _smoothing() | _at(269, SECOND, 0, 0), "269"),
        (580, _at(251, SECOND, 0, 0), "251"),
        (None, _smoothing() | _at(269, SECOND, 0, 0), "269"),
    ],
)
def test_the_place_follows_the_driver_and_what_it_knows(
    driver: int | None, counters: dict[str, tuple[float, float]], place: str
) -> None:
    seen = {"software thermal": 0.1}
    found, where = believed_counters(counters, driver_major=driver, seen=seen, run_s=10)

    assert found == {"software thermal": 1.0, "hardware thermal": 0.0, "power brake": 0.0}
    assert where.startswith(f"fields {place}")


def test_constants_of_power_smoothing_are_not_taken_for_time_that_did_not_pass() -> None:
    found, why = believed_counters(_smoothing(), driver_major=570, seen={"hardware thermal": 0.5}, run_s=10)

    assert found == {}
    assert "hardware thermal was seen for 50%" in why


def test_a_counter_that_ran_longer_than_the_run_is_not_believed() -> None:
    found, why = believed_counters(_at(251, 60 * SECOND, 0, 0), driver_major=570, seen={}, run_s=10)

    assert found == {}
    assert "60 s of software thermal in a run of 10 s" in why


def test_an_old_driver_counts_nothing() -> None:
    assert believed_counters({}, driver_major=535, seen={}, run_s=10) == (
        {},
        "this driver does not count them",
    )

"""The hours in which a game day may run."""

from __future__ import annotations

import datetime

import pytest

from experiments.injecting.window import Window, WindowSpec


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("utc", "holds"),
    [
        ("2026-11-23T07:59", False),  # a Monday in winter: an hour ahead in Berlin
        ("2026-11-23T08:00", True),
        ("2026-11-23T15:59", True),
        ("2026-11-23T16:00", False),
        ("2026-11-21T10:00", False),  # a Saturday
        ("2026-07-20T07:00", True),  # a Monday in summer: two hours ahead
    ],
)
def test_hours_are_those_of_the_named_place(utc: str, holds: bool) -> None:
    window = Window(days=("mon", "tue"), hours="09:00-17:00", timezone="Europe/Berlin")

    assert window.holds(moment(utc)) is holds


@pytest.mark.parametrize(
    ("utc", "holds"),
    [
        ("2026-11-23T23:00", True),
        ("2026-11-24T03:59", True),  # Tuesday morning belongs to Monday's night
        ("2026-11-24T04:00", False),
        ("2026-11-23T03:00", False),  # Sunday's night
    ],
)
def test_hours_past_midnight_belong_to_the_day_they_began_on(utc: str, holds: bool) -> None:
    window = Window(days=("mon",), hours="22:00-04:00", timezone="UTC")

    assert window.holds(moment(utc)) is holds


@pytest.mark.parametrize(
    "wrong",
    [{"timezone": "Mars/Olympus"}, {"timezone": "UTC", "hours": "9-5"}, {"timezone": "UTC", "days": ["Mon"]}],
)
def test_a_window_that_nobody_could_mean_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"no such time zone|as 09:00-17:00|is no day"):
        WindowSpec.model_validate(wrong)

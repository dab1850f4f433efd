"""When a game day may run: days of the week and hours, in a time zone that is named."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator

from probes.spec import Spec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Days and hours; hours past midnight belong to the day on which they began."""

    days: tuple[str, ...]
    hours: str
    timezone: str

    def __str__(self) -> str:
        return f"{' '.join(self.days)} {self.hours} {self.timezone}"

    def holds(self, moment: datetime.datetime) -> bool:
        """Say whether a moment, with its own time zone, lies within."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        begin, end = (_minutes(text) for text in self.hours.split("-"))
        now = local.hour * 60 + local.minute
        today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        if begin < end:
            return today in self.days and begin <= now < end
        return (today in self.days and now >= begin) or (yesterday in self.days and now < end)


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


class WindowSpec(Spec):
    """``window`` of an experiment's extension."""

    days: tuple[str, ...] = Field(
        default=DAYS, min_length=1, description="mon, tue, wed, thu, fri, sat, sun."
    )
    hours: str = Field(default="00:00-00:00", description="As 09:00-17:00; 00:00-00:00 is the whole day.")
    timezone: str = Field(description="As Europe/Berlin, or UTC.")

    @field_validator("days")
    @classmethod
    def _are_days(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [day for day in days if day not in DAYS]:
            raise ValueError(f"{unknown[0]!r} is no day; one of {', '.join(DAYS)}")
        return days

    @field_validator("hours")
    @classmethod
    def _are_hours(cls, hours: str) -> str:
        if not _HOURS.fullmatch(hours):
            raise ValueError("wanted two times of the day, as 09:00-17:00")
        return hours

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("no such time zone on this machine; as Europe/Berlin, or UTC") from error
        return timezone

    def to_window(self) -> Window:
        """Return the window."""
        return Window(days=self.days, hours=self.hours, timezone=self.timezone)

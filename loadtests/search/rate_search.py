"""Where the highest rate that holds is looked for next, and what the steps so far enclose: no clock here.

The rate doubles until one does not hold. What came out of the endpoint while it was overloaded says where its
limit is; one step right below and one right above it enclose it where it is as it seems, bisection does else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probes.outcome import Outcome

STEPS_MAX = 12  # the doubt is shared by them: all that are decided are right together, at the confidence
_AROUND = (0.98, 1.02)  # of what came out under overload
_LIKE = 1.005  # rates nearer to each other than this are one


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One step: a rate, and whether the promises hold there."""

    rate_per_s: float
    outcome: Outcome
    is_long: bool = False  # long enough for a queue near its limit to show
    served_per_s: float | None = (
        None  # what came out of an overloaded endpoint; None: it was not, or not known
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What the limit lies between; None: no step has shown that side."""

    low_per_s: float | None
    high_per_s: float | None

    def is_within(self, precision: float) -> bool:
        """Whether both ends are that close to each other."""
        if self.low_per_s is None or self.high_per_s is None:
            return False
        return self.high_per_s / self.low_per_s <= 1 + precision


def interval_of(tried: Sequence[Tried]) -> Interval:
    """Return the highest rate that held below the lowest that did not, and that one."""
    high = min((one.rate_per_s for one in tried if one.outcome is Outcome.FAIL), default=None)
    low = max(
        (
            one.rate_per_s
            for one in tried
            if one.outcome is Outcome.PASS and (high is None or one.rate_per_s < high)
        ),
        default=None,
    )
    return Interval(low_per_s=low, high_per_s=high)


def next_rate(tried: Sequence[Tried], *, start_per_s: float, precision: float) -> float | None:
    """Return the rate to try next; None: it is enclosed, or what is left cannot be decided."""
    if not tried:
        return start_per_s
    found = interval_of(tried)
    low, high = found.low_per_s, found.high_per_s
    if high is None:
        grown = 2.0 if tried[-1].outcome is Outcome.PASS else 1.25
        return max(one.rate_per_s for one in tried) * grown
    if low is not None and found.is_within(precision):
        is_long = any(one.is_long and one.rate_per_s == low for one in tried if one.outcome is Outcome.PASS)
        return None if is_long else low
    for guess in _guesses(tried, high):
        if (low or 0.0) * _LIKE < guess < high / _LIKE and not _is_tried(guess, tried):
            return guess
    if low is None:
        return min(one.rate_per_s for one in tried) / 2
    return _middle(low, high, tried, precision=precision)


def _guesses(tried: Sequence[Tried], high: float) -> list[float]:
    """Return rates around what came out at the lowest rate that was too high."""
    served = [one.served_per_s for one in tried if one.rate_per_s == high and one.served_per_s is not None]
    return [served[-1] * share for share in _AROUND] if served else []


def _is_tried(rate_per_s: float, tried: Sequence[Tried]) -> bool:
    return any(1 / _LIKE < one.rate_per_s / rate_per_s < _LIKE for one in tried)


def _middle(low: float, high: float, tried: Sequence[Tried], *, precision: float) -> float | None:
    """Return the middle of the wider gap beside the rates that could not be decided."""
    unsure = sorted(one.rate_per_s for one in tried if low < one.rate_per_s < high)
    gaps = [(low, unsure[0]), (unsure[-1], high)] if unsure else [(low, high)]
    begin, end = max(gaps, key=lambda gap: gap[1] / gap[0])
    if unsure and end / begin <= 1 + precision / 2:
        return None
    return math.sqrt(begin * end)

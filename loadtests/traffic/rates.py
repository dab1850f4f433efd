"""Rates that change with time, integrated and inverted exactly: counts go in, moments come out.

A process of unit rate is drawn once, and each of its points is put where the integral of the rate reaches it.
So the shape of the rate and the randomness of the process are apart, and nothing is thinned or rejected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_HALVINGS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A time in which the rate is constant or changes along a line."""

    length_s: float  # math.inf: to the end
    from_per_s: float
    to_per_s: float

    @property
    def arrivals(self) -> float:
        """Return how many arrivals the piece stands for."""
        mean = (self.from_per_s + self.to_per_s) / 2
        return 0.0 if mean == 0 else mean * self.length_s

    def moment_s(self, count: float) -> float:
        """Return when, counted from the start of the piece, ``count`` arrivals have come."""
        slope = 0.0 if math.isinf(self.length_s) else (self.to_per_s - self.from_per_s) / self.length_s
        root = math.sqrt(max(0.0, self.from_per_s**2 + 2 * slope * count))
        # The usual formula would subtract nearly equal numbers; this form of it does not.
        return 0.0 if count == 0 else 2 * count / (self.from_per_s + root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A rate that swings like a day: highest at ``peak_at_s``, lowest half a period later."""

    mean_per_s: float
    swing: float  # from 0 (none) to 1 (down to no arrivals at all)
    period_s: float
    peak_at_s: float

    def arrivals_until(self, moment_s: float) -> float:
        """Return the integral of the rate from the start to a moment."""
        turn = 2 * math.pi / self.period_s
        waves = math.sin(turn * (moment_s - self.peak_at_s)) + math.sin(turn * self.peak_at_s)
        return self.mean_per_s * (moment_s + self.swing * waves / turn)

    def moment_s(self, count: float) -> float:
        """Return when ``count`` arrivals have come, by bisection: the integral never falls."""
        middle, reach = count / self.mean_per_s, self.swing * self.period_s / math.pi
        low, high = max(0.0, middle - reach), middle + reach
        for _ in range(_HALVINGS):
            moment = (low + high) / 2
            if self.arrivals_until(moment) < count:
                low = moment
            else:
                high = moment
        return high


def moments_s(rate: tuple[Piece, ...] | Wave, counts: Iterable[float]) -> Iterator[float]:
    """Yield when the integral of the rate reaches each of the rising ``counts``; ends where it never does."""
    if isinstance(rate, Wave):
        yield from (rate.moment_s(count) for count in counts)
        return
    pieces = iter(rate)
    piece, begun_s, before = next(pieces), 0.0, 0.0
    for count in counts:
        while count - before >= piece.arrivals:
            before, begun_s = before + piece.arrivals, begun_s + piece.length_s
            following = next(pieces, None)
            if following is None or math.isinf(begun_s):
                return
            piece = following
        yield begun_s + piece.moment_s(count - before)

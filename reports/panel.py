"""What one linked timeline is made of: panels of series, bands for what lasted, markers for moments.

Times are seconds since the start of the run; the run's own clock, so all panels share one x axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# More points than a screen has columns tell nothing; the extremes of each column are kept.
POINTS_MAX = 2400
# A series that is silent for this many of its usual intervals shows a gap, not a line over it.
SILENCE_INTERVALS = 3.5

ROLES = ("main", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")

Point = tuple[float, float | None]  # None: a gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line. ``role`` chooses ink and dash, so that lines differ without colour."""

    label: str
    role: str  # "good", "bad", "faint", or one of ``ROLES``
    points: tuple[Point, ...]
    stepped: bool = False
    is_again: bool = False  # its role has a line already: this one is drawn twice as wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart of the timeline."""

    name: str
    title: str
    unit: str
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Something that lasted: a fault from its injection to its undo, a stage of a burn-in."""

    kind: str  # "fault", "undo" or "stage"
    label: str
    start_s: float
    end_s: float | None  # None: nothing says that it ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """A moment that the reader should be able to find."""

    name: str
    label: str
    t_s: float


def thin(points: Sequence[Point], most: int = POINTS_MAX) -> tuple[Point, ...]:
    """Keep the first, the lowest and the highest point of each column, and every gap."""
    if len(points) <= most:
        return tuple(points)
    size = math.ceil(len(points) / (most / 3))
    columns = (points[begin : begin + size] for begin in range(0, len(points), size))
    return tuple(point for column in columns for point in _extremes(column))


def _extremes(column: Sequence[Point]) -> list[Point]:
    known = [index for index, (_, value) in enumerate(column) if value is not None]
    if not known:
        return [column[0]]
    low = min(known, key=lambda index: column[index][1] or 0.0)
    high = max(known, key=lambda index: column[index][1] or 0.0)
    first_gap = next((index for index, (_, value) in enumerate(column) if value is None), known[0])
    return [column[index] for index in sorted({known[0], low, high, first_gap})]


def with_gaps(points: Iterable[Point]) -> tuple[Point, ...]:
    """Put a gap where a series fell silent: a line drawn over missing data would be invented data."""
    ordered = sorted(points, key=lambda point: point[0])
    steps = sorted(after[0] - before[0] for before, after in itertools.pairwise(ordered))
    usual = steps[len(steps) // 2] if steps else 0.0
    spaced: list[Point] = []
    for index, point in enumerate(ordered):
        if index and usual and point[0] - ordered[index - 1][0] > SILENCE_INTERVALS * usual:
            spaced.append((ordered[index - 1][0] + usual, None))
        spaced.append(point)
    return tuple(spaced)


def describe(panel: Panel) -> str:
    """Say in words what a panel shows, for those who do not see it."""
    return "; ".join(_describe(series, panel.unit) for series in panel.series) or "no values"


def _describe(series: Series, unit: str) -> str:
    known = [(value, t_s) for t_s, value in series.points if value is not None]
    if not known:
        return f"{series.label}: no values"
    low, high = min(known), max(known)
    unit = f" {unit}" if unit else ""
    return f"{series.label}: lowest {low[0]:.4g}{unit}, highest {high[0]:.4g}{unit} at {high[1]:.1f} s"

"""Is a run better, worse or the same as earlier ones? Pure: figures in, changes out.

Two sources of noise. Within a run, requests that follow each other resemble each other: that is in the
figure's own spread. Between runs, the same thing measured twice differs for reasons that no single run shows:
it is measured where there are several base runs, and assumed, on the safe side, where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, variance

from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.student_t import quantile, upper_tail
from reports.block_spread import BLOCKS_MIN
from reports.figure_kind import KINDS, Kind
from reports.run_figures import Figure, RunFigures

CONFIDENCE = 0.95
BASE_RUNS_ENOUGH = 5  # below this, intervals are several times wider than the noise itself


class Direction(StrEnum):
    """What became of a figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNCLEAR = "unclear"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What counts as no change, and what is known of the noise beforehand."""

    margin: float | None = None  # of every ratio, 0.05 is 5 %; None: each figure's own
    run_to_run: float | None = None  # standard deviation between runs, of ratios; None: measured or assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One figure before and after. ``change`` is a ratio minus one, or a difference of shares."""

    name: str
    base: float
    run: float
    change: float
    low: float  # 95 % interval of the change
    high: float
    margin: float
    direction: Direction
    why: str = ""  # what keeps it from being clear

    @property
    def is_surely_no_worse(self) -> bool:
        """Whether the interval leaves no room for a change for the worse beyond the margin."""
        return self.low >= -self.margin if KINDS[self.name].is_higher_better else self.high <= self.margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One run beside its base."""

    base: tuple[RunFigures, ...]
    run: RunFigures
    changes: tuple[Change, ...]
    missing: tuple[str, ...]  # figures that one side does not have
    obstacles: tuple[str, ...]  # why nothing can be decided; empty: nothing is in the way
    notes: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """FAIL if anything is worse, INCONCLUSIVE if anything is unclear, else PASS."""
        found = {change.direction for change in self.changes}
        if Direction.WORSE in found:
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE if Direction.UNCLEAR in found or not found else Outcome.PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    """A change on its natural scale: a logarithm of a ratio, or a difference."""

    kind: Kind
    base: float
    run: float
    middle: float
    error: float
    freedom: float

    def chance(self, *, of_worse: bool) -> float:
        """Return how probable such a change for the worse (or better) is where nothing has changed."""
        sign = 1 if self.kind.is_higher_better != of_worse else -1
        t = sign * self.middle / self.error
        return upper_tail(t, self.freedom) if t >= 0 else 1 - upper_tail(-t, self.freedom)

    def end(self, sign: int) -> float:
        """Return one end of the 95 % interval, as a change."""
        reach = quantile((1 - CONFIDENCE) / 2, self.freedom) * self.error
        return self.as_change(self.middle + sign * reach)

    def as_change(self, value: float) -> float:
        return value if self.kind.is_share else math.expm1(min(value, 700.0))


def compare(base: Sequence[RunFigures], run: RunFigures, *, tolerance: Tolerance | None = None) -> Comparison:
    """Compare a run with one base run or several.

    Raises:
        ConfigError: they are not of one workload, or no load tests.
    """
    tolerance = tolerance or Tolerance()
    _refuse(base, run)
    sound = [one for one in base if not one.problems]
    obstacles = [f"{run.id}: {problem}" for problem in run.problems]
    if not sound:
        obstacles += [f"{one.id}: {problem}" for one in base for problem in one.problems]
    used = sound or list(base)
    estimates, missing = _estimates(used, run, tolerance)
    changes = _directions(estimates, tolerance, is_blocked=bool(obstacles))
    return Comparison(
        base=tuple(used),
        run=run,
        changes=tuple(changes),
        missing=tuple(missing),
        obstacles=tuple(obstacles),
        notes=tuple(_notes(base, used, run, tolerance)),
    )


def _refuse(base: Sequence[RunFigures], run: RunFigures) -> None:
    for one in (*base, run):
        if one.kind != "load":
            raise ConfigError(
                f"{one.id}: is a {one.kind} run; only load tests have figures with a known noise to compare. "
                "A burn-in compares its devices with their siblings and with figures of their model itself"
            )
    for one in base:
        keys = differing(one.load, run.load)
        if keys:
            raise ConfigError(
                f"{one.id} and {run.id} are of different loads, so their figures cannot be compared: "
                f"{', '.join(keys)}"
            )


def differing(ours: JsonObject, theirs: JsonObject, path: str = "") -> list[str]:
    """Name the keys by which two specifications differ, with both values; absent and null are alike."""
    found: list[str] = []
    for key in sorted({*ours, *theirs}):
        here, there = ours.get(key), theirs.get(key)
        if isinstance(here, dict) and isinstance(there, dict):
            found += differing(here, there, f"{path}{key}.")
        elif here != there and not (_is_nothing(here) and _is_nothing(there)):
            found.append(f"{path}{key} ({here!r}, {there!r})")
    return found


def _is_nothing(value: object) -> bool:
    return value is None or value == [] or value == {}


def _estimates(
    base: Sequence[RunFigures], run: RunFigures, tolerance: Tolerance
) -> tuple[list[_Estimate], list[str]]:
    estimates, missing = [], []
    for kind in KINDS.values():
        before = [one.figures[kind.name] for one in base if kind.name in one.figures]
        after = run.figures.get(kind.name)
        is_promise_kept = kind.name != "goodput" or all(one.promises == run.promises for one in base)
        if after is not None and len(before) == len(base) and is_promise_kept:
            estimate = _estimate(kind, before, after, tolerance)
            if estimate is not None:
                estimates.append(estimate)
                continue
        if after is not None or before:
            missing.append(kind.name)
    return estimates, missing


def _estimate(kind: Kind, before: Sequence[Figure], after: Figure, tolerance: Tolerance) -> _Estimate | None:
    """Return the change; None: there is no ratio to nothing, or a spread without bound."""
    figures = (*before, after)
    if not kind.is_share and not all(figure.value > 0 for figure in figures):
        return None
    if not all(math.isfinite(figure.spread) for figure in figures):
        return None
    scaled = [figure.value if kind.is_share else math.log(figure.value) for figure in before]
    last = after.value if kind.is_share else math.log(after.value)
    within = fmean(figure.spread**2 for figure in before)
    error, freedom = _noise(kind, scaled, within, after, tolerance)
    middle = fmean(scaled)
    return _Estimate(
        kind=kind,
        base=middle if kind.is_share else math.exp(middle),
        run=after.value,
        middle=last - middle,
        error=max(error, 1e-9),
        freedom=freedom,
    )


def _noise(
    kind: Kind, scaled: Sequence[float], within: float, after: Figure, tolerance: Tolerance
) -> tuple[float, float]:
    """Return the standard error of a change and its degrees of freedom.

    With several base runs, what they differ by holds both noises; it is not taken for less than they have
    within, since few runs can look alike by chance. With one, the deviation between runs is taken to be
    as large as the margin itself.
    """
    count = len(scaled)
    known = None if kind.is_share else tolerance.run_to_run
    if known is None and count > 1:
        alike = max(variance(scaled), within)
        own = max(alike, alike - within + after.spread**2)
        return math.sqrt(alike / count + own), count - 1
    between = (known if known is not None else _margin(kind, tolerance)) ** 2
    return math.sqrt((between + within) / count + between + after.spread**2), BLOCKS_MIN - 1


def _margin(kind: Kind, tolerance: Tolerance) -> float:
    return tolerance.margin if tolerance.margin is not None and not kind.is_share else kind.margin


def _directions(estimates: Sequence[_Estimate], tolerance: Tolerance, *, is_blocked: bool) -> list[Change]:
    worse = _holm([estimate.chance(of_worse=True) for estimate in estimates])
    better = _holm([estimate.chance(of_worse=False) for estimate in estimates])
    more_errors = any(
        is_worse and estimate.kind.name == "error_share"
        for estimate, is_worse in zip(estimates, worse, strict=True)
    )
    changes = []
    for estimate, is_worse, is_better in zip(estimates, worse, better, strict=True):
        low, high, margin = estimate.end(-1), estimate.end(1), _margin(estimate.kind, tolerance)
        direction, why = Direction.UNCLEAR, ""
        if is_blocked:
            why = "the runs cannot be trusted"
        elif -margin <= low and high <= margin:
            direction = Direction.SAME
        elif is_worse:
            direction = Direction.WORSE
        elif is_better and more_errors and estimate.kind.unit == "ms":
            why = "more requests failed, and the failed ones are not in it"
        elif is_better:
            direction = Direction.BETTER
        elif low > 0 or high < 0:
            why = f"not sure enough for one of {len(estimates)} figures"
        else:
            why = "the interval is wider than the margin"
        changes.append(
            Change(
                name=estimate.kind.name,
                base=estimate.base,
                run=estimate.run,
                change=estimate.as_change(estimate.middle),
                low=low,
                high=high,
                margin=margin,
                direction=direction,
                why=why,
            )
        )
    return changes


def _holm(chances: Sequence[float]) -> list[bool]:
    """Return which of several hypotheses fall when at most one in 20 may fall wrongly, of all."""
    fallen = [False] * len(chances)
    for rank, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if chances[index] > (1 - CONFIDENCE) / (len(chances) - rank):
            break
        fallen[index] = True
    return fallen


def _notes(
    base: Sequence[RunFigures], used: Sequence[RunFigures], run: RunFigures, tolerance: Tolerance
) -> list[str]:
    notes = [
        f"left out of the base: {one.id}: {one.problems[0]}"
        for one in base
        if one not in used and one.problems
    ]
    if len(used) == 1 and tolerance.run_to_run is None:
        notes.append(
            "one base run: how much runs differ by themselves is unknown, and is taken to be as much as the "
            f"margin (one standard deviation); {BASE_RUNS_ENOUGH} base runs would measure it"
        )
    elif len(used) < BASE_RUNS_ENOUGH and tolerance.run_to_run is None:
        notes.append(
            f"{len(used)} base runs show little of how much runs differ; {BASE_RUNS_ENOUGH} show more"
        )
    for what, name in (("the endpoint", "endpoint"), ("the model", "model"), ("the client's host", "host")):
        theirs = sorted({str(getattr(one, name)) for one in used} - {str(getattr(run, name))})
        if theirs:
            notes.append(f"{what} differs: {', '.join(theirs)} before, {getattr(run, name)} now")
    if any(one.duration_s != run.duration_s for one in used):
        notes.append("the runs are of different length: what warms up weighs more in a short one")
    if any(one.promises != run.promises for one in used):
        notes.append("the promises differ, so goodput is not compared")
    versions = sorted(
        f"{name} {one.versions.get(name, 'none')} before, {run.versions.get(name, 'none')} now"
        for one in used[-1:]
        for name in {*one.versions, *run.versions}
        if one.versions.get(name) != run.versions.get(name)
    )
    return notes + ([f"versions differ: {'; '.join(versions)}"] if versions else [])

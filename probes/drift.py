"""Whether a run's latencies were still on the move: then its share of breaches is no one's long-run share.

A straight line is laid through the normal scores of each promise's values; its slope is tested against the
scatter that neighbours which resemble each other make. A slope alone takes no verdict away: only one that
would change it, were the run to go on as long again.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

from probes.dependence import correlations_of, lag_sum, normal_scores
from probes.finding import Finding
from probes.in_order import ascending
from probes.metric import at_share
from probes.outcome import Outcome
from probes.promise import GOODPUT, Slo
from probes.request import Request
from probes.share_test import INDEPENDENT_MIN
from probes.tally import tally_slo

DOUBT = 0.001  # a run that stands still is taken for a moving one this often
_QUARTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The line through a run."""

    chance: float  # of such a slope in a run that stands still
    by_quarter: tuple[float, ...]  # the value promised about, as a share of its bound
    independent: float

    @property
    def is_moving(self) -> bool:
        """Whether chance does not explain the slope."""
        return self.chance <= DOUBT and self.independent >= INDEPENDENT_MIN

    @property
    def ahead(self) -> float:
        """Where the value would be after as long again."""
        first, last = self.by_quarter[0], self.by_quarter[-1]
        return last + (last - first) * _QUARTERS / (_QUARTERS - 1)


def find_trend(scores: Sequence[float], *, objective: float) -> Trend | None:
    """Return the line through the badness of requests in order of time; None: too few of them came."""
    finite = array("d", filter(math.isfinite, scores))
    count = len(finite)
    if count < 2 * INDEPENDENT_MIN:
        return None
    normal = normal_scores(finite)
    middle = (count - 1) / 2
    spread = sum((i - middle) ** 2 for i in range(count))
    slope = sum((i - middle) * z for i, z in enumerate(normal)) / spread
    rests = array("d", (z - slope * (i - middle) for i, z in enumerate(normal)))
    inflation = 1 + 2 * lag_sum(correlations_of(rests))
    error = math.sqrt(sum(rest * rest for rest in rests) / count * inflation / spread)
    chance = 2 * NormalDist().cdf(-abs(slope) / error) if error else 1.0
    edges = [round(count * quarter / _QUARTERS) for quarter in range(_QUARTERS + 1)]
    quarters = (ascending(finite[begin:end]) for begin, end in pairwise(edges))
    return Trend(
        chance=chance,
        by_quarter=tuple(at_share(part, objective) for part in quarters),
        independent=count / inflation,
    )


def judge_drift(slos: Sequence[Slo], requests: Sequence[Request], *, phase: str = "") -> list[Finding]:
    """Say of each promise about a time whether it would still hold, or break, were the run to go on.

    ``phase`` names the part of the run's requests that these are.
    """
    found = []
    for slo in slos:
        if slo.metric != GOODPUT and slo.window is None:
            trend = find_trend(tally_slo(slo, requests).scores, objective=slo.objective)
            found.append(_finding(slo, trend, phase))
    return found


def _finding(slo: Slo, trend: Trend | None, phase: str) -> Finding:
    outcome: Outcome | None = Outcome.PASS
    next_step = ""
    if trend is None:
        outcome, observed = None, "too few answers for a line through them"
    else:
        assert slo.bound is not None
        quarters = ", ".join(f"{value * slo.bound:.0f}" for value in trend.by_quarter)
        observed = f"p{slo.objective * 100:g} of each quarter of the run: {quarters} ms"
        first, last = trend.by_quarter[0], trend.by_quarter[-1]
        if trend.is_moving and last > first and last <= 1 < trend.ahead:
            outcome = Outcome.INCONCLUSIVE
            observed += "; it grows, and would be beyond the bound after as long again"
            next_step = "run longer, or at a lower rate: a queue that grows has no long run"
        elif trend.is_moving and last < first and last <= 1 < first:
            outcome = Outcome.INCONCLUSIVE
            observed += "; it began beyond the bound and came below it"
            next_step = "if that is a warm-up, state so: warm_up: {is_found: true}, or {seconds: N}"
        elif trend.is_moving:
            observed += "; it moves, but away from no verdict"
    return Finding(
        rule="drift",
        subject=f"slo:{slo.name}" + (f"@{phase}" if phase else ""),
        outcome=outcome,
        observed=observed,
        expected="no trend that would change the verdict, were the run to go on as long again",
        unit="ms",
        evidence={} if trend is None else {"chance": trend.chance, "quarters": list(trend.by_quarter)},
        next_step=next_step,
    )

"""What one step at one rate shows: whether the promises hold there, and whether the endpoint keeps up at all.

Above its capacity an endpoint has no long run: its queue grows for as long as the load goes on, and the first
requests are as fast as ever. So a step holds only once it has been long enough for its queue to show and no
queue has grown; and a queue that grows beyond chance, with most of the latest requests too slow, is a failure
however few of all requests were slow by then.
"""

from __future__ import annotations

import math
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.plan import ARRIVALS_ENDED
from loadtests.traffic.arrivals import Arrivals
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import in_time, values_of
from probes.slo import Slo, judge_slos, tally_slo
from reports.run import Run
from reports.table import read_series, series_names

# A queue at exactly its capacity grows by chance, as the square root of what arrived; so many times as much
# comes by chance in fewer than 1 of 1,000 steps, at all looks together.
_CHANCE = 4.0
_VARIANCE_MIN = 0.05  # of arrivals and sizes together: no server is quite even
_LATE_SHARE = 0.5  # of the latest requests have to be in breach
_SECONDS_MIN = 4
_LONG = 4.0  # a queue at 1 - x of its capacity comes to rest after some 1/x² requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """How much the requests under way grew, and over how many arrivals."""

    arrivals: int
    before: int
    growth: int

    @property
    def share(self) -> float:
        """Part of what arrived that did not come out."""
        return max(0, self.growth) / self.arrivals if self.arrivals else 1.0

    def is_growing(self, variance: float) -> bool:
        """Whether neither chance nor the filling of the endpoint explains it."""
        chance = _CHANCE * math.sqrt(max(variance, _VARIANCE_MIN) * self.arrivals)
        return self.growth > max(chance, self.before / 2)  # overload has begun before the first count, too


def backlog_of(run: Run) -> Backlog:
    """Return the growth over the last three quarters of the time in which requests arrived."""
    # What is under way a little later has begun to drain, though the row may count arrivals of before.
    end_ns = min((event.t_ns for event in run.events_of(ARRIVALS_ENDED)), default=None)
    seconds: dict[int, dict[str, tuple[int, int]]] = {}  # the last row of each load process
    for name in series_names(run):
        if name.startswith("client-"):
            for row in read_series(run, name):
                if end_ns is None or row["t_ns"] <= end_ns:
                    counts = seconds.setdefault(row["t_ns"] // 10**9, {})
                    counts[name] = (row["arrivals"], row["in_flight"])
    ordered: list[tuple[int, int]] = []
    for second in sorted(seconds):
        arrivals, under_way = (sum(column) for column in zip(*seconds[second].values(), strict=True))
        if arrivals > (ordered[-1][0] if ordered else 0):
            ordered.append((arrivals, under_way))
    return backlog_of_counts(ordered)


def backlog_of_counts(ordered: Sequence[tuple[int, int]]) -> Backlog:
    """Return the growth, from how many had arrived and how many were under way, second by second."""
    if len(ordered) < _SECONDS_MIN:
        return Backlog(arrivals=0, before=0, growth=0)
    first, last = ordered[max(1, len(ordered) // 4)], ordered[-1]
    return Backlog(arrivals=last[0] - first[0], before=first[1], growth=last[1] - first[1])


def variance_of(arrivals: Arrivals, requests: Sequence[Request]) -> float:
    """Return the squared variation of gaps and of answers' sizes together: what makes a queue by chance."""
    gaps = {"constant": 0.0, "poisson": 1.0}.get(arrivals.process, 1 / (arrivals.shape or 1.0))
    sizes = array("q", filter(None, values_of(requests, "tokens_out")))
    if len(sizes) < 2:
        return gaps + 1
    return gaps + float(statistics.pvariance(sizes) / statistics.mean(sizes) ** 2)


def judge_step(
    slos: Sequence[Slo],
    requests: Sequence[Request],
    backlog: Backlog,
    *,
    variance: float,
    arrived_min: int,
    precision: float,
) -> Outcome:
    """Decide one step, at a look that may be one of any number."""
    outcomes = [finding.outcome for finding in judge_slos(slos, requests, is_peeked=True, is_by_load=True)]
    if Outcome.FAIL in outcomes:
        return Outcome.FAIL
    if backlog.is_growing(variance) and _is_late(slos, requests):
        return Outcome.FAIL
    has_settled = backlog.arrivals >= arrived_min and backlog.share <= precision / 2
    held = bool(outcomes) and all(outcome is Outcome.PASS for outcome in outcomes)
    return Outcome.PASS if held and has_settled else Outcome.INCONCLUSIVE


def _is_late(slos: Sequence[Slo], requests: Sequence[Request]) -> bool:
    ordered = in_time(requests)
    latest = ordered[len(ordered) * 3 // 4 :]
    tallies = [tally_slo(slo, latest, slos) for slo in slos]
    return any(tally.total and tally.certain / tally.total > _LATE_SHARE for tally in tallies)


def arrivals_needed(precision: float) -> int:
    """Return after how many arrivals a queue that far below its limit has come to rest."""
    return math.ceil(_LONG / precision**2)

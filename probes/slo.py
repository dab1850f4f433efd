"""Promises about traffic, and the rules that judge request rows against them.

A percentile from one run is itself uncertain. The rules here count how many requests broke the bound and ask
the binomial distribution what that says about the share in the long run: PASS and FAIL are each stated at the
SLO's confidence, and between them lies INCONCLUSIVE. Requests are taken as independent of each other; values
of one request are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probes.binomial import binomial_cdf
from probes.breaches import CLIENT_ERRORS, Breaches, count_breaches, inflation
from probes.errors import ConfigError
from probes.finding import Finding
from probes.metric import METRICS as METRICS
from probes.metric import percentile as percentile
from probes.outcome import Outcome
from probes.request import Request

GOODPUT = "goodput"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A promise. Either a metric keeps a bound for a share of requests, or goodput reaches an objective.

    ``metric: ttft_ms, bound: 500, objective: 0.95`` reads: 95 % of the values are at most 500 ms, which is
    the same as p95 <= 500. ``metric: goodput, objective: 0.99`` reads: 99 % of all requests that the schedule
    wanted were answered whole and met every bound of the other SLOs.
    """

    name: str
    metric: str
    objective: float  # share that has to keep the bound, between 0 and 1
    bound: float | None = None  # in the metric's unit; None: goodput, which has no bound of its own
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.metric != GOODPUT and self.metric not in METRICS:
            raise ConfigError(f"slo {self.name}: metric {self.metric!r} is unknown; one of {known_metrics()}")
        if (self.metric == GOODPUT) != (self.bound is None):
            raise ConfigError(f"slo {self.name}: every metric but goodput needs a bound, goodput takes none")
        if not 0 < self.objective < 1:
            raise ConfigError(f"slo {self.name}: objective must lie between 0 and 1, got {self.objective!r}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(
                f"slo {self.name}: confidence must be from 0.5 to below 1, got {self.confidence!r}"
            )


def known_metrics() -> str:
    """Return the names that an SLO may use, for messages."""
    return ", ".join([*METRICS, GOODPUT])


def judge_slos(slos: Sequence[Slo], requests: Sequence[Request], *, phase: str = "") -> list[Finding]:
    """Judge each SLO over the same requests; ``phase`` names the part of a game day they belong to."""
    return [judge_slo(slo, requests, slos=slos, phase=phase) for slo in slos]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many values broke a promise, at least and at most, of how many."""

    certain: int
    possible: int
    total: int
    inflation: float = 1.0  # how much breaches that come together weaken the evidence

    def outcome(self, slo: Slo) -> Outcome:
        """Decide at the SLO's confidence; PASS must hold for the most, FAIL for the fewest breaches."""
        total = math.floor(self.total / self.inflation)
        most = min(total, math.ceil(self.possible / self.inflation))
        fewest = math.floor(self.certain / self.inflation)
        if decide(most, total, objective=slo.objective, confidence=slo.confidence) is Outcome.PASS:
            return Outcome.PASS
        if decide(fewest, total, objective=slo.objective, confidence=slo.confidence) is Outcome.FAIL:
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE


def judge_slo(slo: Slo, requests: Sequence[Request], *, slos: Sequence[Slo] = (), phase: str = "") -> Finding:
    """Judge one SLO; ``slos`` are all those that goodput has to meet."""
    tally = tally_slo(slo, requests, slos)
    outcome = tally.outcome(slo)
    needed = samples_needed(slo.objective, slo.confidence)
    return Finding(
        rule="slo",
        subject=f"slo:{slo.name}" + (f"@{phase}" if phase else ""),
        outcome=outcome,
        observed=_observed(slo, tally, requests, outcome, needed),
        expected=f"at least {slo.objective:.2%} at {slo.confidence:.0%} confidence",
        unit=_unit(slo),
        evidence={
            "bad": tally.possible,
            "bad_for_certain": tally.certain,
            "total": tally.total,
            "inflation": round(tally.inflation, 3),
            "requests": len(requests),
            "samples_needed": needed,
            "phase": phase,
            "metric": slo.metric,
        },
        next_step=_next_step(outcome, tally, needed),
    )


def _observed(slo: Slo, tally: Tally, requests: Sequence[Request], outcome: Outcome, needed: int) -> str:
    share = f"{(tally.total - tally.possible) / tally.total:.2%}" if tally.total else "nothing"
    where = "requests were good" if slo.metric == GOODPUT else f"values at most {slo.bound:g} {_unit(slo)}"
    observed = f"{share} of {tally.total} {where}{_percentile_text(slo, requests)}"
    if tally.possible > tally.certain:
        observed += f"; {tally.certain} of {tally.possible} breaches are certain, the rest perhaps ours"
    if outcome is Outcome.INCONCLUSIVE and tally.total < needed:
        observed += f"; at least {needed} are needed to pass"
    return observed


def _next_step(outcome: Outcome, tally: Tally, needed: int) -> str:
    if outcome is Outcome.PASS:
        return ""
    if outcome is Outcome.FAIL:
        return "look at the slowest and the failed requests of this run in the report"
    if tally.total < needed:
        return f"run longer or at a higher rate: {needed} samples can decide a clear case, {tally.total} came"
    if tally.possible > tally.certain:
        return "give the load client a core of its own, or lower the rate: its own delay blurs the figures"
    return "the truth lies near the objective: more samples can decide it"


def _unit(slo: Slo) -> str:
    return "requests" if slo.metric == GOODPUT else METRICS[slo.metric].unit


def _percentile_text(slo: Slo, requests: Sequence[Request]) -> str:
    if slo.metric == GOODPUT:
        return ""
    values = [value for request in requests if request.is_good for value in METRICS[slo.metric].read(request)]
    if not values:
        return ""
    observed = percentile(values, slo.objective)
    return f" (p{slo.objective * 100:g} of the answered: {observed:.1f} {_unit(slo)})"


def tally_slo(slo: Slo, requests: Sequence[Request], slos: Sequence[Slo] = ()) -> Tally:
    """Count the breaches of one promise.

    A failed or never-sent request breaks every promise, with as many values as an answered one has: dropping
    it would make a server that fails fast look good. What failed on the client's side may have been good.
    """
    requests = [request for request in requests if not request.is_hung_up]  # neither good nor bad
    if slo.metric == GOODPUT:
        bounded = [other for other in slos if other.metric != GOODPUT]
        pairs = [_judge_whole(request, bounded) for request in requests]
        return Tally(certain=sum(c for c, _ in pairs), possible=sum(p for _, p in pairs), total=len(pairs))
    counted = [count_breaches(slo.metric, _bound(slo), request) for request in requests if request.is_good]
    weight = max(1, round(sum(c.total for c in counted) / len(counted))) if counted else 1
    for request in requests:
        if not request.is_good:
            is_certain = request.error not in CLIENT_ERRORS
            counted.append(Breaches(certain=weight * is_certain, possible=weight, total=weight))
    return Tally(
        certain=sum(c.certain for c in counted),
        possible=sum(c.possible for c in counted),
        total=sum(c.total for c in counted),
        inflation=inflation([(c.possible, c.total) for c in counted]),
    )


def _judge_whole(request: Request, bounded: Sequence[Slo]) -> tuple[bool, bool]:
    """Return whether a request is bad for certain, and whether it may be."""
    if not request.is_good:
        return request.error not in CLIENT_ERRORS, True
    counts = [(slo, count_breaches(slo.metric, _bound(slo), request)) for slo in bounded]
    return (
        any(breaches.certain > _allowed(slo, breaches.total) for slo, breaches in counts),
        any(breaches.possible > _allowed(slo, breaches.total) for slo, breaches in counts),
    )


def _allowed(slo: Slo, total: int) -> float:
    """Return how many of one request's values may break the bound: none of one, its share of many."""
    return round((1 - slo.objective) * total, 9) if total > 1 else 0.0


def count_bad(slo: Slo, requests: Sequence[Request], slos: Sequence[Slo] = ()) -> tuple[int, int]:
    """Return how many values broke the promise as measured, and of how many."""
    tally = tally_slo(slo, requests, slos)
    return tally.possible, tally.total


def is_good(request: Request, slos: Iterable[Slo]) -> bool:
    """Say whether a request was answered whole and met every bound (gaps: its own share of them)."""
    return not _judge_whole(request, [slo for slo in slos if slo.metric != GOODPUT])[1]


def _bound(slo: Slo) -> float:
    assert slo.bound is not None
    return slo.bound


def decide(bad: int, total: int, *, objective: float, confidence: float) -> Outcome:
    """Decide whether the long-run share of bad ones is below ``1 - objective``, above it, or unknown.

    Exact binomial test on either side, each wrong with probability at most ``1 - confidence``.
    """
    allowed, doubt = 1 - objective, 1 - confidence
    if total == 0:
        return Outcome.INCONCLUSIVE
    if binomial_cdf(bad, total, allowed) <= doubt:
        return Outcome.PASS
    if bad and 1 - binomial_cdf(bad - 1, total, allowed) <= doubt:
        return Outcome.FAIL
    return Outcome.INCONCLUSIVE


def samples_needed(objective: float, confidence: float) -> int:
    """Return how many samples pass when not one of them is bad: ``objective ** n <= 1 - confidence``."""
    return math.ceil(math.log(1 - confidence) / math.log(objective))

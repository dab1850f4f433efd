"""Request rows as a promise sees them: how many values of each broke it, and how bad each request was.

A failed or never-sent request breaks every promise, with as many values as an answered one has: dropping it
would make a server that fails fast look good. What failed on the client's side may have been good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from probes.breaches import CLIENT_ERRORS, Breaches, count_breaches
from probes.dependence import inflation
from probes.metric import METRICS, percentile
from probes.promise import GOODPUT, Slo
from probes.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of each request, or stretch, in order of time: values, breaches at least and at most, badness."""

    certain_each: Sequence[int] = field(repr=False)
    possible_each: Sequence[int] = field(repr=False)
    total_each: Sequence[int] = field(repr=False)
    scores: Sequence[float] = field(repr=False)  # the higher the worse; failed ones are infinitely bad

    @property
    def certain(self) -> int:
        """Breaches that happened for certain."""
        return sum(self.certain_each)

    @property
    def possible(self) -> int:
        """Breaches as measured; the client's own delay may have made some of them."""
        return sum(self.possible_each)

    @property
    def total(self) -> int:
        """All values."""
        return sum(self.total_each)

    @property
    def failed(self) -> int:
        """Requests that failed for certain, not only slowly."""
        pairs = zip(self.scores, self.certain_each, strict=True)
        return sum(score == math.inf and certain > 0 for score, certain in pairs)

    def inflation(self, allowed: float) -> float:
        """Return how many of these values say as much as one independent one."""
        return inflation(self.possible_each, self.total_each, self.scores, share=allowed)

    def part(self, begin: int, end: int) -> Tally:
        """Return a stretch of it."""
        return Tally(
            certain_each=self.certain_each[begin:end],
            possible_each=self.possible_each[begin:end],
            total_each=self.total_each[begin:end],
            scores=self.scores[begin:end],
        )


def tally_slo(slo: Slo, requests: Sequence[Request], slos: Sequence[Slo] = ()) -> Tally:
    """Count the breaches of one promise; ``slos`` are all those that goodput has to meet."""
    kept = [request for request in requests if not request.is_hung_up]  # neither good nor bad
    kept.sort(key=lambda request: request.t_intended_ns)
    found = _tally_goodput(slos, kept) if slo.metric == GOODPUT else _tally_metric(slo, kept)
    return found if slo.window is None else _tally_windows(slo, found, kept)


def _tally_goodput(slos: Sequence[Slo], requests: Sequence[Request]) -> Tally:
    bounded = [slo for slo in slos if slo.metric != GOODPUT]
    pairs = [_judge_whole(request, bounded) for request in requests]
    return Tally(
        certain_each=[int(certain) for certain, _ in pairs],
        possible_each=[int(possible) for _, possible in pairs],
        total_each=[1] * len(pairs),
        scores=[
            max((_badness(slo, request) for slo in bounded), default=0.0) if request.is_good else math.inf
            for request in requests
        ],
    )


def _tally_metric(slo: Slo, requests: Sequence[Request]) -> Tally:
    counted = [
        count_breaches(slo.metric, bound_of(slo), request) if request.is_good else None
        for request in requests
    ]
    answered = [breaches.total for breaches in counted if breaches is not None]
    weight = max(1, round(sum(answered) / len(answered))) if answered else 1
    each = [
        _failed(request, weight) if breaches is None else breaches
        for request, breaches in zip(requests, counted, strict=True)
    ]
    return Tally(
        certain_each=[breaches.certain for breaches in each],
        possible_each=[breaches.possible for breaches in each],
        total_each=[breaches.total for breaches in each],
        scores=[_badness(slo, request) for request in requests],
    )


def _failed(request: Request, weight: int) -> Breaches:
    is_certain = request.error not in CLIENT_ERRORS
    return Breaches(certain=weight * is_certain, possible=weight, total=weight)


def _badness(slo: Slo, request: Request) -> float:
    """Return how far a request is from its bound: 1 is at it, more is beyond."""
    if not request.is_good:
        return math.inf
    values = METRICS[slo.metric].read(request)
    if not values:
        return 0.0
    value = values[0] if len(values) == 1 else percentile(values, slo.objective)
    return value / bound_of(slo)


def _tally_windows(slo: Slo, tally: Tally, requests: Sequence[Request]) -> Tally:
    """Return whole stretches of time as what is counted; one without requests is left out."""
    assert slo.window is not None
    if not requests:
        return tally
    length_ns = round(slo.window.length_s * 1e9)
    begin_ns, last_ns = requests[0].t_intended_ns, requests[-1].t_intended_ns
    stretches: dict[int, list[int]] = {}
    for position, request in enumerate(requests):
        stretches.setdefault((request.t_intended_ns - begin_ns) // length_ns, []).append(position)
    whole = [where for number, where in stretches.items() if begin_ns + (number + 1) * length_ns <= last_ns]
    certain, possible, shares = [], [], []
    for where in whole:
        total = sum(tally.total_each[i] for i in where)
        if not total:
            continue
        limit = (1 - slo.objective) * total + 1e-9
        shares.append(sum(tally.possible_each[i] for i in where) / total)
        certain.append(int(sum(tally.certain_each[i] for i in where) > limit))
        possible.append(int(sum(tally.possible_each[i] for i in where) > limit))
    return Tally(certain_each=certain, possible_each=possible, total_each=[1] * len(shares), scores=shares)


def _judge_whole(request: Request, bounded: Sequence[Slo]) -> tuple[bool, bool]:
    """Return whether a request is bad for certain, and whether it may be."""
    if not request.is_good:
        return request.error not in CLIENT_ERRORS, True
    counts = [(slo, count_breaches(slo.metric, bound_of(slo), request)) for slo in bounded]
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


def bound_of(slo: Slo) -> float:
    """Return the bound of a promise that has one."""
    assert slo.bound is not None
    return slo.bound

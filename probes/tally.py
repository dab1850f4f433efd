"""Request rows as a promise sees them: how many values of each broke it, and how bad each request was.

A failed or never-sent request breaks every promise, with as many values as an answered one has: dropping it
would make a server that fails fast look good. What failed on the client's side may have been good.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from probes.breaches import CLIENT_ERRORS, count_breaches
from probes.dependence import inflation
from probes.load_driven import count_under_way, inflation_by_load
from probes.metric import METRICS, percentile
from probes.promise import GOODPUT, Slo
from probes.request import Request
from probes.request_columns import in_time, keep, of, values_of

_FAILED = -1  # in the place of a number of values


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What is left of a tally when its rows are no longer needed."""

    certain: int
    possible: int
    total: int
    requests: int  # or stretches


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of each request, or stretch, in order of time: values, breaches at least and at most, badness."""

    certain_each: Sequence[int] = field(repr=False)
    possible_each: Sequence[int] = field(repr=False)
    total_each: Sequence[int] = field(repr=False)
    scores: Sequence[float] = field(repr=False)  # the higher the worse; failed ones are infinitely bad
    # Others, when each was sent; none where stretches are counted.
    under_way_each: Sequence[int] = field(default=(), repr=False)

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
    def sums(self) -> Sums:
        """All of it together."""
        return Sums(
            certain=self.certain, possible=self.possible, total=self.total, requests=len(self.total_each)
        )

    @property
    def failed(self) -> int:
        """Requests that failed for certain, not only slowly."""
        pairs = zip(self.scores, self.certain_each, strict=True)
        return sum(score == math.inf and certain > 0 for score, certain in pairs)

    def inflation(self, allowed: float) -> float:
        """Return how many of these values say as much as one independent one."""
        return inflation(self.possible_each, self.total_each, self.scores, share=allowed)

    def inflation_by_load(self, allowed: float) -> float:
        """Return the same where it is the load that makes requests slow; 1: it does not, or is not known."""
        return inflation_by_load(self.scores, self.under_way_each, share=allowed)

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
    answered = keep(requests, "is_hung_up", where=lambda is_hung_up: not is_hung_up)  # neither good nor bad
    kept = in_time(answered)
    found = _tally_goodput(slos, kept) if slo.metric == GOODPUT else _tally_metric(slo, kept)
    if slo.window is not None:
        return _tally_windows(slo, found, kept)
    return replace(found, under_way_each=_under_way(kept))


def _under_way(requests: Sequence[Request]) -> Sequence[int]:
    begins, ends = array("q"), array("q")
    for intended, sent, ended in of(requests, "t_intended_ns", "t_sent_ns", "t_end_ns"):
        begins.append(sent or intended)
        ends.append(ended or begins[-1])
    return count_under_way(begins, ends)


def _tally_goodput(slos: Sequence[Slo], requests: Sequence[Request]) -> Tally:
    bounded = [slo for slo in slos if slo.metric != GOODPUT]
    certain, possible, scores = array("b"), array("b"), array("d")
    for request in requests:
        is_certain, is_possible = _judge_whole(request, bounded)
        certain.append(is_certain)
        possible.append(is_possible)
        badness = (_badness(slo, request) for slo in bounded)
        scores.append(max(badness, default=0.0) if request.is_good else math.inf)
    ones = array("b", itertools.repeat(1, len(certain)))
    return Tally(certain_each=certain, possible_each=possible, total_each=ones, scores=scores)


def _tally_metric(slo: Slo, requests: Sequence[Request]) -> Tally:
    certain, possible, total, scores = array("i"), array("i"), array("i"), array("d")
    for request in requests:
        scores.append(_badness(slo, request))
        if request.is_good:
            breaches = count_breaches(slo.metric, bound_of(slo), request)
            certain.append(breaches.certain)
            possible.append(breaches.possible)
            total.append(breaches.total)
        else:  # with as many values as an answered one has, which is known only at the end
            certain.append(request.error not in CLIENT_ERRORS)
            possible.append(1)
            total.append(_FAILED)
    answered = len(total) - total.count(_FAILED)
    weight = max(1, round(sum(n for n in total if n != _FAILED) / answered)) if answered else 1
    for position, values in enumerate(total):
        if values == _FAILED:
            certain[position] *= weight
            possible[position] = total[position] = weight
    return Tally(certain_each=certain, possible_each=possible, total_each=total, scores=scores)


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
    times = array("q", values_of(requests, "t_intended_ns"))
    certain, possible, shares = array("b"), array("b"), array("d")
    for where in _whole_stretches(times, round(slo.window.length_s * 1e9)):
        total = sum(tally.total_each[where])
        if not total:
            continue
        limit = (1 - slo.objective) * total + 1e-9
        shares.append(sum(tally.possible_each[where]) / total)
        certain.append(sum(tally.certain_each[where]) > limit)
        possible.append(sum(tally.possible_each[where]) > limit)
    ones = array("b", itertools.repeat(1, len(shares)))
    return Tally(certain_each=certain, possible_each=possible, total_each=ones, scores=shares)


def _whole_stretches(times_ns: Sequence[int], length_ns: int) -> Iterator[slice]:
    """Yield where the requests of each stretch stand; one that the run did not see to its end is left out."""
    begin_ns, last_ns, at = times_ns[0], times_ns[-1], 0
    for number, group in itertools.groupby((t_ns - begin_ns) // length_ns for t_ns in times_ns):
        count = sum(1 for _ in group)
        if begin_ns + (number + 1) * length_ns <= last_ns:
            yield slice(at, at + count)
        at += count


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

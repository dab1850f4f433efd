"""Promises about traffic, and the rules that judge request rows against them.

A percentile from one run is itself uncertain. The rules here count how many requests broke the bound and ask
the binomial distribution what that says about the share in the long run: PASS and FAIL are each stated at the
SLO's confidence, and between them lies INCONCLUSIVE. Requests are taken as independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from probes.errors import ConfigError
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of one request. ``read`` returns its values: none where the request has none."""

    name: str
    unit: str
    read: Callable[[Request], Sequence[float]]
    meaning: str
    elsewhere: str = ""  # what other tools call it


def _span_ms(start_ns: int | None, end_ns: int | None) -> tuple[float, ...]:
    return () if start_ns is None or end_ns is None else ((end_ns - start_ns) / 1e6,)


def _tpot_ms(request: Request) -> tuple[float, ...]:
    tokens = request.tokens_out if request.tokens_out is not None else request.events
    if request.t_first_ns is None or request.t_last_ns is None or tokens < 2:
        return ()
    return ((request.t_last_ns - request.t_first_ns) / 1e6 / (tokens - 1),)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="ttft_ms",
            unit="ms",
            read=lambda r: _span_ms(r.t_sent_ns, r.t_first_ns),
            meaning="time from sending the request to the first event with content or reasoning",
            elsewhere="vLLM `ttft` also counts an empty first delta; MLPerf counts from the schedule",
        ),
        Metric(
            name="ttft_from_schedule_ms",
            unit="ms",
            read=lambda r: _span_ms(r.t_intended_ns, r.t_first_ns),
            meaning="time from when the schedule wanted the request sent to its first content",
            elsewhere="MLPerf `ttft`",
        ),
        Metric(
            name="itl_ms",
            unit="ms",
            read=lambda r: tuple(gap / 1000 for gap in r.gaps_us),
            meaning="every gap between successive content events, of all requests together",
            elsewhere="vLLM and SGLang `itl`; aiperf `inter_chunk_latency`",
        ),
        Metric(
            name="tpot_ms",
            unit="ms",
            read=_tpot_ms,
            meaning="(last - first content) / (output tokens - 1), one figure per request",
            elsewhere="vLLM `tpot`; guidellm and aiperf call it ITL",
        ),
        Metric(
            name="e2e_ms",
            unit="ms",
            read=lambda r: _span_ms(r.t_sent_ns, r.t_end_ns),
            meaning="time from sending the request to the end of its answer",
            elsewhere="vLLM `e2el`; aiperf `request_latency`",
        ),
        Metric(
            name="e2e_from_schedule_ms",
            unit="ms",
            read=lambda r: _span_ms(r.t_intended_ns, r.t_end_ns),
            meaning="time from when the schedule wanted the request sent to the end of its answer",
            elsewhere="wrk2 and MLPerf latency",
        ),
    )
}
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
            raise ConfigError(f"slo {self.name}: confidence must be from 0.5 to below 1, got {self.confidence!r}")


def known_metrics() -> str:
    """Return the names that an SLO may use, for messages."""
    return ", ".join([*METRICS, GOODPUT])


def judge_slos(slos: Sequence[Slo], requests: Sequence[Request], *, phase: str = "") -> list[Finding]:
    """Judge each SLO over the same requests; ``phase`` names the part of a game day they belong to."""
    return [judge_slo(slo, requests, slos=slos, phase=phase) for slo in slos]


def judge_slo(slo: Slo, requests: Sequence[Request], *, slos: Sequence[Slo] = (), phase: str = "") -> Finding:
    """Judge one SLO; ``slos`` are all those that goodput has to meet."""
    bad, total = count_bad(slo, requests, slos)
    subject = f"slo:{slo.name}" + (f"@{phase}" if phase else "")
    outcome = decide(bad, total, objective=slo.objective, confidence=slo.confidence)
    needed = samples_needed(slo.objective, slo.confidence)
    share = f"{(total - bad) / total:.2%}" if total else "nothing"
    where = "requests were good" if slo.metric == GOODPUT else f"values at most {slo.bound:g} {_unit(slo)}"
    observed = f"{share} of {total} {where}{_percentile_text(slo, requests)}"
    if outcome is Outcome.INCONCLUSIVE and total < needed:
        observed += f"; at least {needed} are needed to pass"
    return Finding(
        rule="slo",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"at least {slo.objective:.2%} at {slo.confidence:.0%} confidence",
        unit=_unit(slo),
        evidence={"bad": bad, "total": total, "samples_needed": needed, "phase": phase, "metric": slo.metric},
        next_step=_next_step(outcome, total, needed),
    )


def _next_step(outcome: Outcome, total: int, needed: int) -> str:
    if outcome is Outcome.PASS:
        return ""
    if outcome is Outcome.FAIL:
        return "look at the slowest and the failed requests of this run in the report"
    if total < needed:
        return f"run longer or at a higher rate: {needed} samples can decide a clear case, {total} came"
    return "the truth lies near the objective: more samples can decide it"


def _unit(slo: Slo) -> str:
    return "requests" if slo.metric == GOODPUT else METRICS[slo.metric].unit


def _percentile_text(slo: Slo, requests: Sequence[Request]) -> str:
    if slo.metric == GOODPUT:
        return ""
    values = [value for request in requests if request.is_good for value in METRICS[slo.metric].read(request)]
    if not values:
        return ""
    return f" (p{slo.objective * 100:g} of the answered: {percentile(values, slo.objective):.1f} {_unit(slo)})"


def count_bad(slo: Slo, requests: Sequence[Request], slos: Sequence[Slo] = ()) -> tuple[int, int]:
    """Return how many values broke the promise, and of how many.

    A failed or never-sent request breaks every latency promise: dropping it would make a server that fails
    fast look good.
    """
    if slo.metric == GOODPUT:
        bounded = [other for other in slos if other.metric != GOODPUT]
        return sum(not is_good(request, bounded) for request in requests), len(requests)
    bad = total = 0
    for request in requests:
        values = METRICS[slo.metric].read(request) if request.is_good else ()
        if not request.is_good:
            bad, total = bad + 1, total + 1
            continue
        total += len(values)
        bad += sum(value > _bound(slo) for value in values)
    return bad, total


def is_good(request: Request, slos: Iterable[Slo]) -> bool:
    """Say whether a request was answered whole and met every bound (gaps: its own share of them)."""
    return request.is_good and all(_meets(request, slo) for slo in slos)


def _meets(request: Request, slo: Slo) -> bool:
    values = METRICS[slo.metric].read(request)
    if len(values) <= 1:
        return all(value <= _bound(slo) for value in values)
    return sum(value > _bound(slo) for value in values) <= (1 - slo.objective) * len(values)


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


def binomial_cdf(successes: int, trials: int, probability: float) -> float:
    """Return P(X <= successes) for a binomial X, summed in logarithms from its largest term."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    mean = trials * probability
    if successes <= mean:
        return _tail(successes, trials, probability, step=-1)
    return 1.0 - _tail(successes + 1, trials, probability, step=1)


def _tail(start: int, trials: int, probability: float, *, step: int) -> float:
    """Sum the terms from ``start`` outwards; they shrink, so stop when they no longer matter."""
    odds = probability / (1 - probability)
    log_term = (
        math.lgamma(trials + 1)
        - math.lgamma(start + 1)
        - math.lgamma(trials - start + 1)
        + start * math.log(probability)
        + (trials - start) * math.log1p(-probability)
    )
    total, term, k = 0.0, 1.0, start
    while 0 <= k <= trials and term > 1e-17 * max(total, 1e-300):
        total += term
        term *= k / ((trials - k + 1) * odds) if step < 0 else (trials - k) / (k + 1) * odds
        k += step
    return min(1.0, math.exp(log_term) * total)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the order statistic at ``share`` (nearest rank): a value that was really measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

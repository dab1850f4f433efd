"""Judges a search for the highest rate that holds, from the records of its steps alone."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests import plan as plans
from loadtests.rules.deciding import ended_so_far
from loadtests.search.rate_search import Interval, Tried, interval_of
from loadtests.search.rate_step import arrivals_needed, backlog_of, judge_step, variance_of
from loadtests.spec.workload import WorkloadSpec
from probes.distribution import Counted, count_gaps
from probes.finding import Finding
from probes.metric import percentile
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import values_of
from probes.slo import is_good
from probes.warm_up import WarmUp, leave_out
from reports.run import Run, load_run
from reports.table import read_columns, read_series, series_names

KIND = "findmax"
STEPS_FOLDER = "steps"
STEP_ENDED = "load.step_ended"
SEARCH_ENDED = "load.search_ended"
CLIENT_LIMIT = "the client is the limit"
_CLIENT_RULES = ("lateness", "client-lag", "client-calibrated", "requests-accounted", "accounting")
_BUSY_SHARE = 0.95  # of what overload yields; the knee is the lowest rate at which so much comes out
_GROWN = 3.0  # times a latency at the lowest rate: that part of the answer has saturated


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step as its record shows it."""

    rate_per_s: float
    outcome: Outcome
    requests: int
    arrivals: int  # over which the queue was watched
    growth: int  # of the requests under way, over them
    goodput_share: float | None
    good_per_s: float | None
    tokens_per_s: float | None
    served_per_s: float | None  # None: nothing was in the way of what arrived, or too little came
    ttft_ms_p50: float | None
    ttft_ms_p95: float | None
    itl_ms_p50: float | None
    e2e_ms_p95: float | None
    turned_away: int  # by HTTP 429
    client: str  # why the client's figures cannot be used; empty: they can
    is_long: bool


def read_step(run: Run, *, precision: float, arrived_min: int, is_over: bool = True) -> Step:
    """Return what a step shows; ``is_over`` False: it is still going on, and looked at."""
    spec = WorkloadSpec.model_validate(run.header.spec)
    workload = spec.to_workload()
    requests: Sequence[Request] = read_columns(run.path)
    if not is_over:
        requests = ended_so_far(requests)
    settled = leave_out(requests, workload.warm_up or WarmUp()).requests
    backlog = backlog_of(run)
    variance = variance_of(workload.arrivals, requests)
    outcome = judge_step(
        workload.slos,
        settled,
        backlog,
        variance=variance,
        arrived_min=arrived_min,
        precision=precision,
    )
    client = _client_doubt(run) if is_over else ""
    t0_ns, end_ns = _arrived(requests)
    length_s = (end_ns - t0_ns) / 1e9
    good = sum(is_good(request, workload.slos) for request in requests)
    good_inside = sum(is_good(r, workload.slos) for r in requests if t0_ns <= r.t_intended_ns < end_ns)
    first = array("d", ((r.t_first_ns - r.t_sent_ns) / 1e6 for r in requests if r.t_first_ns and r.t_sent_ns))
    e2e = array(
        "d", ((r.t_end_ns - r.t_sent_ns) / 1e6 for r in requests if r.t_end_ns and r.t_sent_ns and r.is_good)
    )
    gaps = Counted(count_gaps(values_of(requests, "gaps_us")))
    tokens = _tokens_per_s(requests, t0_ns, end_ns)
    sizes = array("q", filter(None, values_of(requests, "tokens_out")))
    served = tokens / statistics.mean(sizes) if tokens and sizes and outcome is Outcome.FAIL else None
    return Step(
        rate_per_s=spec.arrivals.rate_per_s,  # type: ignore[union-attr]
        outcome=Outcome.INCONCLUSIVE if client else outcome,
        requests=len(requests),
        arrivals=backlog.arrivals,
        growth=backlog.growth,
        goodput_share=good / len(requests) if requests else None,
        good_per_s=good_inside / length_s if length_s else None,
        tokens_per_s=tokens,
        served_per_s=served,
        ttft_ms_p50=percentile(first, 0.5) if first else None,
        ttft_ms_p95=percentile(first, 0.95) if first else None,
        itl_ms_p50=gaps.at_share(0.5) / 1000 if gaps else None,
        e2e_ms_p95=percentile(e2e, 0.95) if e2e else None,
        turned_away=sum(r.error == "http_429" for r in requests),
        client=client,
        is_long=backlog.arrivals >= arrivals_needed(precision),
    )


def _arrived(requests: Sequence[Request]) -> tuple[int, int]:
    """Return the last three quarters of the time in which requests arrived."""
    wanted = array("q", values_of(requests, "t_intended_ns"))
    if not wanted:
        return 0, 0
    return min(wanted) + (max(wanted) - min(wanted)) // 4, max(wanted)


def _tokens_per_s(requests: Sequence[Request], begin_ns: int, end_ns: int) -> float | None:
    """Return the rate of tokens in a time, those of an answer spread evenly from first to last."""
    if end_ns <= begin_ns:
        return None
    total = 0.0
    for request in requests:
        if request.t_first_ns and request.t_last_ns and request.tokens_out:
            length_ns = max(1, request.t_last_ns - request.t_first_ns)
            inside = min(end_ns, request.t_last_ns) - max(begin_ns, request.t_first_ns)
            total += request.tokens_out * max(0.0, min(1.0, inside / length_ns))
    return total / (end_ns - begin_ns) * 1e9


def _client_doubt(run: Run) -> str:
    bad = [f for f in run.findings if f.rule in _CLIENT_RULES and f.outcome is Outcome.INCONCLUSIVE]
    if not run.events_of(plans.ENDED):
        return "the step did not come to its end"
    return f"{bad[0].rule}: {bad[0].observed}" if bad else ""


def read_steps(run: Run) -> list[Step]:
    """Return the steps of a search that came to their end, in order; what was tried is what is judged."""
    return [
        read_step(
            load_run(run.path / STEPS_FOLDER / Path(str(event.data["step"])).name),
            precision=run.header.spec["precision"],
            arrived_min=int(event.data["arrived_min"]),
        )
        for event in run.events_of(STEP_ENDED)
    ]


def to_tried(steps: Sequence[Step]) -> list[Tried]:
    """Return steps as the search takes them."""
    return [
        Tried(
            rate_per_s=step.rate_per_s,
            outcome=step.outcome,
            is_long=step.is_long,
            served_per_s=step.served_per_s,
        )
        for step in steps
        if not step.client
    ]


def find_knee(steps: Sequence[Step]) -> float | None:
    """Return the lowest rate at which nearly as many tokens come as at most; None: no overload was seen."""
    known = [step for step in steps if step.tokens_per_s]
    if not any(step.outcome is Outcome.FAIL for step in known):
        return None
    most = max(step.tokens_per_s or 0.0 for step in known)
    return min(step.rate_per_s for step in known if (step.tokens_per_s or 0.0) >= _BUSY_SHARE * most)


def find_saturated(steps: Sequence[Step], *, queue_seen: float | None) -> str:
    """Say what gave in first, as far as anything tells: the server's own queue, or the shape of latencies."""
    failed = [step for step in steps if step.outcome is Outcome.FAIL]
    if not failed:
        client = next((step.client for step in steps if step.client), "")
        return f"client: {client}" if client else "not known: no rate failed"
    low, high = min(steps, key=lambda s: s.rate_per_s), min(failed, key=lambda s: s.rate_per_s)
    if high.turned_away:
        return f"queue: {high.turned_away} requests were turned away with HTTP 429"
    if queue_seen:
        return f"slots: up to {queue_seen:.0f} requests waited, as the server itself says"
    if _has_grown(low.itl_ms_p50, high.itl_ms_p50):
        return f"tokens/s: gaps between tokens went from {low.itl_ms_p50:.0f} to {high.itl_ms_p50:.0f} ms"
    if _has_grown(low.ttft_ms_p50, high.ttft_ms_p50):
        return (
            f"slots: first tokens came after {high.ttft_ms_p50:.0f} ms instead of {low.ttft_ms_p50:.0f}, "
            "at the same pace from then on: requests waited to begin"
        )
    return "not known: neither the server's metrics nor the latencies tell"


def _has_grown(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after > _GROWN * max(before, 1e-3)


def _queue_seen(run: Run, steps: Sequence[Step]) -> float | None:
    """Return the longest queue that the server's metrics showed in the lowest step that failed."""
    failed = [step for step in steps if step.outcome is Outcome.FAIL]
    if not failed:
        return None
    index = steps.index(min(failed, key=lambda step: step.rate_per_s))
    folder = Path(str(run.events_of(STEP_ENDED)[index].data["step"])).name
    step = load_run(run.path / STEPS_FOLDER / folder)
    rows = read_series(step, "server") if "server" in series_names(step) else []
    return max((row["server_waiting"] for row in rows if row.get("server_waiting") is not None), default=None)


def judge_run(run: Run) -> list[Finding]:
    """Return the limit, and the interval it was enclosed in."""
    steps = read_steps(run)
    found = interval_of(to_tried(steps))
    ended = next((str(event.data["reason"]) for event in run.events_of(SEARCH_ENDED)), "it was interrupted")
    precision = float(run.header.spec["precision"])
    is_found = found.low_per_s is not None and found.high_per_s is not None
    outcome = Outcome.PASS if is_found and found.is_within(precision) else Outcome.INCONCLUSIVE
    return [
        Finding(
            rule="max-rate",
            subject=f"endpoint:{_endpoint(run)}",
            outcome=outcome,
            observed=f"{interval_text(found)} in {len(steps)} steps; {ended}",
            expected=f"the highest rate that meets every SLO, enclosed within {precision:.0%}",
            unit="requests/s",
            evidence={
                "low_per_s": found.low_per_s,
                "high_per_s": found.high_per_s,
                "knee_per_s": find_knee(steps),
                "saturated": find_saturated(steps, queue_seen=_queue_seen(run, steps)),
                "steps": [asdict(step) for step in steps],
            },
            next_step="" if outcome is Outcome.PASS else _next_step(found, steps),
        )
    ]


def _endpoint(run: Run) -> str:
    return str(run.header.spec["workload"]["endpoint"].get("url") or "simulated")


def interval_text(found: Interval) -> str:
    """Return an interval in words."""
    if found.low_per_s is None and found.high_per_s is None:
        return "nothing was decided"
    if found.low_per_s is None:
        return f"no rate held; {found.high_per_s:.2f}/s did not"
    if found.high_per_s is None:
        return f"{found.low_per_s:.2f}/s holds; no rate that does not was found"
    return f"{found.low_per_s:.2f}/s holds, {found.high_per_s:.2f}/s does not"


def _next_step(found: Interval, steps: Sequence[Step]) -> str:
    if any(step.client for step in steps):
        return "give the load client more of this machine, or several: see overproof load calibrate"
    if found.low_per_s is None:
        return "look at the slowest and failed requests of the lowest step: the SLOs hold at no rate tried"
    return "give it more time with --within-s: the truth near the limit takes long steps"

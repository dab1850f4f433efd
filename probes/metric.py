"""The figures of one request, each defined once, with the names that other tools have for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from probes.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of one request. ``read`` returns its values: none where the request has none."""

    name: str
    unit: str
    read: Callable[[Request], Sequence[float]]
    meaning: str
    elsewhere: str = ""  # what other tools call it
    # How much lower and higher than measured the truth may be, in the unit, because the client read late.
    slack: Callable[[Request], tuple[float, float]] = lambda _: (0.0, 0.0)


def _span_ms(start_ns: int | None, end_ns: int | None) -> tuple[float, ...]:
    return () if start_ns is None or end_ns is None else ((end_ns - start_ns) / 1e6,)


def _tpot_ms(request: Request) -> tuple[float, ...]:
    tokens = request.tokens_out if request.tokens_out is not None else request.events
    if request.t_first_ns is None or request.t_last_ns is None or tokens < 2:
        return ()
    return ((request.t_last_ns - request.t_first_ns) / 1e6 / (tokens - 1),)


def late_ms(request: Request) -> float:
    """How late the client itself sent the request; waiting for a connection is the server's."""
    if request.t_sent_ns is None:
        return 0.0
    waited_ms = (request.connect_ms or 0.0) + (request.tls_ms or 0.0)
    return max(0.0, (request.t_sent_ns - request.t_intended_ns) / 1e6 - waited_ms)


def _tpot_slack_ms(request: Request) -> tuple[float, float]:
    tokens = request.tokens_out if request.tokens_out is not None else request.events
    gaps = max(1, tokens - 1)
    return request.last_uncertain_ms / gaps, request.first_uncertain_ms / gaps


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="ttft_ms",
            unit="ms",
            read=lambda r: _span_ms(r.t_sent_ns, r.t_first_ns),
            slack=lambda r: (r.first_uncertain_ms, 0.0),
            meaning="time from sending the request to the first event with content or reasoning",
            elsewhere="vLLM `ttft` also counts an empty first delta; MLPerf counts from the schedule",
        ),
        Metric(
            name="ttft_from_schedule_ms",
            unit="ms",
            read=lambda r: _span_ms(r.t_intended_ns, r.t_first_ns),
            slack=lambda r: (r.first_uncertain_ms + late_ms(r), 0.0),
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
            slack=_tpot_slack_ms,
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
            slack=lambda r: (late_ms(r), 0.0),
            meaning="time from when the schedule wanted the request sent to the end of its answer",
            elsewhere="wrk2 and MLPerf latency",
        ),
    )
}
ITL = "itl_ms"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the order statistic at ``share`` (nearest rank): a value that was really measured."""
    return at_share(sorted(values), share)


def at_share(ordered: Sequence[float], share: float) -> float:
    """Return the same of values that ascend already."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

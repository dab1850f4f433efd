"""What a load client was found able to measure, and whether a run stayed within that.

Right before its load, each load process reads streams of a golden endpoint on its own machine, whose true
send times are known. What comes of it is one ``Reading``; the run is judged by it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from loadtests.calibration.busiest import Busiest
from loadtests.calibration.timing_error import Spread, TimingError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

EVENT = "load.calibrated"
ERROR_MS_MAX = 1.0
REQUESTS_MIN = 100  # for a p99 that is more than the worst of few
# Of more times than this it may not be open whether the client or the golden endpoint was late.
UNSURE_SHARE_MAX = 0.01
CLOCK_STEP_MS_MAX = 0.5
FAILED_SHARE_MAX = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One load process beside the truth, at one rate. ``reason`` is set where nothing could be learnt."""

    worker: int
    offered_per_s: float
    is_tls: bool = False  # whether the golden endpoint spoke TLS
    events_per_s: float = 0.0  # its busiest second
    streams: int = 0  # the most at once
    requests: int = 0
    failed: int = 0
    unmatched: int = 0
    ttft_error_ms_p50: float | None = None
    ttft_error_ms_p99: float | None = None
    ttft_error_ms_max: float | None = None
    gap_error_ms_p50: float | None = None
    gap_error_ms_p99: float | None = None
    gap_error_ms_max: float | None = None
    jitter_ms_p50: float | None = None  # of the golden endpoint against its own plan
    jitter_ms_p99: float | None = None
    unsure_share: float = 0.0  # of all times, those that slow writes of the endpoint may explain
    lag_ms_p99: float | None = None  # longest wait of received data for the client, of each request
    cpu_us_per_event: float | None = None
    endpoint_cpu_share: float | None = None
    clock_step_ms: float = 0.0
    # The distributions beside each other, by name and share, as "ttft_p99".
    true_ms: dict[str, float | None] = field(default_factory=dict)
    heard_ms: dict[str, float | None] = field(default_factory=dict)
    reason: str = ""


def with_errors(found: Reading, error: TimingError) -> Reading:
    """Return a reading with what the comparison showed."""
    return replace(
        found,
        unmatched=error.unmatched,
        ttft_error_ms_p50=error.ttft_error.p50,
        ttft_error_ms_p99=error.ttft_error.p99,
        ttft_error_ms_max=error.ttft_error.most,
        gap_error_ms_p50=error.gap_error.p50,
        gap_error_ms_p99=error.gap_error.p99,
        gap_error_ms_max=error.gap_error.most,
        jitter_ms_p50=error.jitter.p50,
        jitter_ms_p99=error.jitter.p99,
        unsure_share=round(error.unsure_share, 5),
        true_ms=_shares(ttft=error.ttft_true, gap=error.gap_true),
        heard_ms=_shares(ttft=error.ttft_heard, gap=error.gap_heard),
    )


def _shares(**spreads: Spread) -> dict[str, float | None]:
    return {
        f"{name}_{share}": value
        for name, spread in spreads.items()
        for share, value in (("p50", spread.p50), ("p99", spread.p99))
    }


def reading_from_json(data: JsonObject) -> Reading:
    """Read a reading back; what a newer version adds is dropped."""
    return Reading(**{name: data[name] for name in Reading.__dataclass_fields__ if name in data})


def why_not_certified(found: Reading, *, error_ms_max: float) -> str:
    """Return what speaks against this reading; empty: the client measures that well up to its rate."""
    if found.reason:
        return found.reason
    answered = found.requests - found.failed
    if answered < REQUESTS_MIN or found.ttft_error_ms_p99 is None or found.gap_error_ms_p99 is None:
        return f"only {answered} answers came, {REQUESTS_MIN} are needed"
    lost = found.failed + found.unmatched
    checks = (
        (
            lost > FAILED_SHARE_MAX * found.requests,
            f"{lost} of {found.requests} answers were not heard whole",
        ),
        (abs(found.clock_step_ms) > CLOCK_STEP_MS_MAX, f"the clock jumped by {found.clock_step_ms:g} ms"),
        (
            found.unsure_share > UNSURE_SHARE_MAX,
            f"the golden endpoint is not sure itself of {found.unsure_share:.1%} of its times",
        ),
        (
            found.ttft_error_ms_p99 > error_ms_max,
            f"time to first token was off by {found.ttft_error_ms_p99:.2f} ms at p99",
        ),
        (found.gap_error_ms_p99 > error_ms_max, f"gaps were off by {found.gap_error_ms_p99:.2f} ms at p99"),
    )
    return "; ".join(text for is_so, text in checks if is_so)


def certified(readings: Sequence[Reading], *, error_ms_max: float) -> Reading | None:
    """Return the reading with the highest rate that is good; None: none is."""
    good = [one for one in readings if not why_not_certified(one, error_ms_max=error_ms_max)]
    return max(good, key=lambda one: one.events_per_s, default=None)


def judge_calibration(
    readings: Sequence[Reading],
    used: Mapping[int, Busiest],
    *,
    error_ms_max: float = ERROR_MS_MAX,
    is_skipped: bool = False,
    needs_timing: bool = True,
    is_tls: bool = False,
) -> Finding:
    """Each load process was certified, right before its load, for at least what it then had to read.

    Without calibration nothing is known of the client's error, and where promises are about times that is
    missing evidence. Where none is (``needs_timing``), it does not matter. A run of which anything came by
    TLS (``is_tls``), which costs more to read, is certified by readings over TLS alone.
    """
    fitting = [one for one in readings if one.is_tls or not is_tls]
    by_worker = {worker: [one for one in fitting if one.worker == worker] for worker in used}
    doubts = {
        worker: doubt
        for worker, found in by_worker.items()
        if (doubt := _doubt(found, used[worker], error_ms_max=error_ms_max, is_tls=is_tls))
    }
    if is_skipped and not readings:
        observed = "this client was not calibrated, as asked for"
    elif not used:
        observed = "nothing was sent"
    else:
        observed = "; ".join(
            _told(worker, doubts.get(worker, ""), by_worker[worker], error_ms_max) for worker in used
        )
    is_good = bool(used) and not doubts
    outcome: Outcome | None = Outcome.PASS if is_good else Outcome.INCONCLUSIVE
    if is_skipped and not needs_timing:
        outcome = None
    return Finding(
        rule="client-calibrated",
        subject="client:load",
        outcome=outcome,
        observed=observed,
        expected=f"within {error_ms_max:g} ms of a golden endpoint's times at p99, for what the run had",
        unit="ms",
        evidence={
            "readings": [asdict(one) for one in readings],
            "used": {str(worker): asdict(one) for worker, one in used.items()},
        },
        next_step="" if outcome is not Outcome.INCONCLUSIVE else _next_step(is_skipped, doubts),
    )


def _doubt(found: Sequence[Reading], used: Busiest, *, error_ms_max: float, is_tls: bool) -> str:
    if not found:
        return "it was not calibrated" + (" over TLS" if is_tls else "")
    best = certified(found, error_ms_max=error_ms_max)
    if best is None:
        return why_not_certified(found[-1], error_ms_max=error_ms_max)
    if used.events_per_s > best.events_per_s:
        return (
            f"it read {used.events_per_s:,.0f} events/s, "
            f"beyond the {best.events_per_s:,.0f} that it is certified for"
        )
    if used.streams > best.streams:
        return f"it had {used.streams} streams open, beyond the {best.streams} that it is certified for"
    return ""


def _told(worker: int, doubt: str, found: Sequence[Reading], error_ms_max: float) -> str:
    if doubt:
        return f"load process {worker}: {doubt}"
    best = certified(found, error_ms_max=error_ms_max)
    assert best is not None
    return (
        f"load process {worker}: error at p99 {best.ttft_error_ms_p99:.2f} ms to first token, "
        f"{best.gap_error_ms_p99:.2f} ms in gaps, "
        f"up to {best.events_per_s:,.0f} events/s on {best.streams} streams"
    )


def _next_step(is_skipped: bool, doubts: Mapping[int, str]) -> str:
    if is_skipped:
        return "run it without --no-calibration"
    if any("beyond" in doubt for doubt in doubts.values()):
        return "set calibration.events_per_s and calibration.streams in the workload, or use more processes"
    return "give the client more of this machine; `overproof load calibrate` shows what it can do"

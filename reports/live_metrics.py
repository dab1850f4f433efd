"""The names under which a run's live figures stand on its Prometheus page, as docs/reference.md has them.

Units are Prometheus' base units: seconds, watts, celsius, hertz, ratios from 0 to 1. A name keeps its
meaning, unit and labels; a new figure gets a new name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from probes.metric import ITL
from reports.live import Progress
from reports.live_traffic import TTFT, LiveTraffic, Span

COUNTER, GAUGE = "counter", "gauge"


@dataclass(frozen=True, slots=True)
class LiveMetric:
    """One name on the page. Counters end in ``_total``."""

    name: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def kind(self) -> str:
        """Whether it only ever grows."""
        return COUNTER if self.name.endswith("_total") else GAUGE


@dataclass(frozen=True, slots=True)
class Figure:
    """One value on the page."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


METRICS = {
    metric.name: metric
    for metric in (
        LiveMetric("overproof_run_info", ("run", "kind", "title"), "Which run this is; always 1."),
        LiveMetric("overproof_run_elapsed_seconds", (), "Time since the run began."),
        LiveMetric("overproof_run_step", ("step", "state"), "1 for the state in which a step is."),
        LiveMetric("overproof_burnin_stage", ("device", "stage"), "1 for the stage in which a device is."),
        LiveMetric("overproof_burnin_compute_flops", ("device",), "Floating-point operations a second."),
        LiveMetric("overproof_burnin_copy_bytes_per_second", ("device",), "Bytes copied a second."),
        LiveMetric("overproof_burnin_power_watts", ("device",), "Power that the device draws."),
        LiveMetric("overproof_burnin_temperature_celsius", ("device",), "Temperature of the device."),
        LiveMetric("overproof_burnin_sm_clock_hertz", ("device",), "Clock of its multiprocessors."),
        LiveMetric("overproof_burnin_held_back", ("device", "reason"), "1 while its clocks are held back."),
        LiveMetric("overproof_burnin_errors_total", ("device",), "Wrong results, XIDs and lost workers."),
        LiveMetric("overproof_burnin_left_seconds", (), "Planned load that is still to come."),
        LiveMetric("overproof_fleet_hosts", ("state",), "Hosts of a fleet by state or outcome."),
        LiveMetric("overproof_load_arrivals_total", ("worker",), "Requests that the schedule wanted so far."),
        LiveMetric("overproof_load_ended_total", ("worker",), "Requests that have ended, well or not."),
        LiveMetric("overproof_load_failed_total", ("worker",), "Requests that failed."),
        LiveMetric("overproof_load_dropped_total", ("worker",), "Arrivals dropped at the in-flight limit."),
        LiveMetric("overproof_load_stream_events_total", ("worker",), "Stream events with content."),
        LiveMetric("overproof_load_in_flight", ("worker",), "Requests under way."),
        LiveMetric("overproof_load_lateness_seconds", ("worker",), "Latest sending of the last second."),
        LiveMetric("overproof_load_client_lag_seconds", ("worker",), "Longest wait of data that had come."),
        LiveMetric(
            "overproof_load_client_busy_seconds", ("worker",), "Longest time without a look for data."
        ),
        LiveMetric(
            "overproof_load_client_cpu_ratio", ("worker",), "CPU time of the load process; 1: a core."
        ),
        LiveMetric("overproof_load_errors_total", ("kind",), "Failed requests by kind of failure."),
        LiveMetric("overproof_load_ttft_seconds", ("percentile", "span"), "Time to first token."),
        LiveMetric(
            "overproof_load_gap_seconds", ("percentile", "span"), "Gaps between tokens, all together."
        ),
        LiveMetric("overproof_load_promise_good_ratio", ("promise", "span"), "Share that keeps the promise."),
        LiveMetric("overproof_load_promise_wanted_ratio", ("promise",), "Share that the promise wants."),
        LiveMetric("overproof_gameday_phase", ("phase",), "1 for the phase of the game day."),
        LiveMetric(
            "overproof_gameday_fault", ("fault", "subject"), "1 while a fault may be there, 0 once undone."
        ),
        LiveMetric("overproof_gameday_replicas_ready", ("service",), "Replicas that serve."),
        LiveMetric("overproof_gameday_replicas_wanted", ("service",), "Replicas that there should be."),
        LiveMetric("overproof_gameday_training_steps_total", (), "Steps that the training job has made."),
        LiveMetric("overproof_gameday_guard_used_ratio", ("guard",), "Of what a guard allows; 1: it stops."),
        LiveMetric("overproof_gameday_left_seconds", (), "Time that the day still takes, about."),
    )
}

# Column of a load process's figures: name on the page, and what one of the column is in the page's unit.
_CLIENT = {
    "arrivals": ("overproof_load_arrivals_total", 1.0),
    "ended": ("overproof_load_ended_total", 1.0),
    "failed": ("overproof_load_failed_total", 1.0),
    "dropped": ("overproof_load_dropped_total", 1.0),
    "events": ("overproof_load_stream_events_total", 1.0),
    "in_flight": ("overproof_load_in_flight", 1.0),
    "lateness_ms_max": ("overproof_load_lateness_seconds", 1e-3),
    "lag_ms_max": ("overproof_load_client_lag_seconds", 1e-3),
    "busy_ms_max": ("overproof_load_client_busy_seconds", 1e-3),
    "cpu_pct": ("overproof_load_client_cpu_ratio", 1e-2),
}
_SPREADS = {TTFT: "overproof_load_ttft_seconds", ITL: "overproof_load_gap_seconds"}


def run_figures(progress: Progress, *, run: str, kind: str) -> Iterator[Figure]:
    """Yield what every run shows of itself."""
    yield Figure("overproof_run_info", 1, {"run": run, "kind": kind, "title": progress.title})
    yield Figure("overproof_run_elapsed_seconds", progress.elapsed_s)
    for step, state in progress.states().items():
        yield Figure("overproof_run_step", 1, {"step": step, "state": state})


def traffic_figures(traffic: LiveTraffic) -> Iterator[Figure]:
    """Yield what a load test, or the load of a game day, shows."""
    seen = traffic.figures()
    for worker, row in seen.clients.items():
        for column, (name, one) in _CLIENT.items():
            if isinstance(row.get(column), (int, float)):
                yield Figure(name, float(row[column]) * one, {"worker": worker})
    for kind, count in seen.whole.errors.items():
        yield Figure("overproof_load_errors_total", count, {"kind": kind})
    for label, span in (("10s", seen.now), ("run", seen.whole)):
        yield from _span_figures(span, label)
    for slo in traffic.slos:
        yield Figure("overproof_load_promise_wanted_ratio", slo.objective, {"promise": slo.name})


def _span_figures(span: Span, label: str) -> Iterator[Figure]:
    for metric, name in _SPREADS.items():
        for percent, value_ms in span.percentiles.get(metric, {}).items():
            yield Figure(name, value_ms / 1e3, {"percentile": str(percent), "span": label})
    for promise, share in span.good_share.items():
        yield Figure("overproof_load_promise_good_ratio", share, {"promise": promise, "span": label})

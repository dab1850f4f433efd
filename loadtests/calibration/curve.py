"""What this machine's load client can measure, and how well: a curve over the rate of events."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.calibration.certified import ERROR_MS_MAX, EVENT, Reading, reading_from_json, why_not_certified
from loadtests.calibration.need import STREAMS_MAX, Need
from probes.child import end_child, python_module, start_child
from probes.errors import TargetError
from probes.event import to_json_line
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.live import Progress
from reports.record import create_run
from reports.run import Run, load_run
from reports.session import recording

if TYPE_CHECKING:
    from rich.table import Table

KIND = "calibration"
MACHINE = "calibration.machine"
RATES_PER_S = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 80_000, 100_000, 120_000)
_EVENTS_PER_STREAM_S = 100  # one every 10 ms
_STREAMS_MIN = 64
_TOKENS = 200
_TRIES = 2  # of one rate: other programs may have been in the way
_BAD_RATES_MAX = 2  # one after the other, and the curve ends
_READING_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One rate of the curve, over all processes: sums of what they did, the worst of what they missed."""

    offered_per_s: float
    events_per_s: float
    streams: int
    cpu_us_per_event: float | None  # None: nothing was read
    ttft_error_ms_p50: float | None
    ttft_error_ms_p99: float | None
    gap_error_ms_p50: float | None
    gap_error_ms_p99: float | None
    jitter_ms_p50: float | None
    jitter_ms_p99: float | None
    against: str  # why it is not certified; empty: it is


def run_calibration(
    *,
    out: Path,
    processes: int,
    events_per_s_max: float,
    error_ms_max: float = ERROR_MS_MAX,
    is_tls: bool = False,
    is_quiet: bool,
) -> Run:
    """Measure rate after rate with so many client processes at once, and return the judged record."""
    rates = [rate for rate in RATES_PER_S if rate < events_per_s_max] + [events_per_s_max]
    spec: JsonObject = {
        "processes": processes,
        "events_per_s_max": events_per_s_max,
        "error_ms_max": error_ms_max,
        "is_tls": is_tls,
    }
    writer = create_run(out, kind=KIND, spec=spec, seed=1)
    with recording(writer, judge_run), Progress("calibration", quiet=is_quiet) as progress:
        writer.event(KIND, MACHINE, **_machine())
        with _clients(processes) as clients:
            bad = 0
            for rate in rates:
                point = None
                for attempt in range(_TRIES):
                    progress.step(f"{rate:,.0f} events/s", "running", f"try {attempt + 1}")
                    found = _ask(clients, rate, is_tls=is_tls, run=writer.path)
                    for one in found:
                        writer.event("load", EVENT, rate_per_s=rate, attempt=attempt, **asdict(one))
                    point = point_of(rate, found, error_ms_max=error_ms_max, processes=processes)
                    if not point.against:
                        break
                assert point is not None
                progress.step(f"{rate:,.0f} events/s", "done", point.against or "certified")
                bad = bad + 1 if point.against else 0
                if bad >= _BAD_RATES_MAX:
                    break
    return load_run(writer.path)


@contextlib.contextmanager
def _clients(processes: int) -> Iterator[list[subprocess.Popen[str]]]:
    clients: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            clients.append(start_child(python_module("loadtests.calibration.client")))
        yield clients
    finally:
        for client in clients:
            end_child(client)
            if client.stdout is not None:
                client.stdout.close()


def _ask(
    clients: Sequence[subprocess.Popen[str]], rate_per_s: float, *, is_tls: bool, run: Path
) -> list[Reading]:
    """Have every client take its share of a rate at the same time."""
    each = rate_per_s / len(clients)
    streams = min(STREAMS_MAX, max(_STREAMS_MIN, round(each / _EVENTS_PER_STREAM_S)))
    need = asdict(Need(events_per_s=each, streams=streams, tokens=_TOKENS, is_tls=is_tls))
    for worker, client in enumerate(clients):
        assert client.stdin is not None
        with contextlib.suppress(OSError):  # it may have died; that it says nothing tells
            client.stdin.write(to_json_line({"need": need, "run": str(run), "worker": worker}))
            client.stdin.flush()
    deadline = time.monotonic() + _READING_S
    return [_said(client, deadline) for client in clients]


def _said(client: subprocess.Popen[str], deadline: float) -> Reading:
    assert client.stdout is not None
    ready, _, _ = select.select([client.stdout], [], [], max(0.0, deadline - time.monotonic()))
    line = client.stdout.readline() if ready else ""
    if not line:
        raise TargetError("a client process of the calibration died or hangs")
    return reading_from_json(json.loads(line))


def point_of(rate_per_s: float, found: Sequence[Reading], *, error_ms_max: float, processes: int) -> Point:
    """Put the readings of all processes at one rate together."""
    doubts = [why_not_certified(one, error_ms_max=error_ms_max) for one in found]
    if len(found) < processes:  # the run was stopped in it
        doubts.append(f"{processes - len(found)} of {processes} processes said nothing")
    costs = [one.cpu_us_per_event for one in found if one.cpu_us_per_event is not None]
    return Point(
        offered_per_s=rate_per_s,
        events_per_s=round(sum(one.events_per_s for one in found), 1),
        streams=sum(one.streams for one in found),
        cpu_us_per_event=round(statistics.mean(costs), 2) if costs else None,
        ttft_error_ms_p50=_most(one.ttft_error_ms_p50 for one in found),
        ttft_error_ms_p99=_most(one.ttft_error_ms_p99 for one in found),
        gap_error_ms_p50=_most(one.gap_error_ms_p50 for one in found),
        gap_error_ms_p99=_most(one.gap_error_ms_p99 for one in found),
        jitter_ms_p50=_most(one.jitter_ms_p50 for one in found),
        jitter_ms_p99=_most(one.jitter_ms_p99 for one in found),
        against=next((doubt for doubt in doubts if doubt), ""),
    )


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def curve_of(run: Run) -> list[Point]:
    """Return the curve of a recorded calibration; of several tries at a rate the last."""
    error_ms_max, processes = float(run.header.spec["error_ms_max"]), int(run.header.spec["processes"])
    tries: dict[float, dict[int, list[Reading]]] = {}
    for event in run.events_of(EVENT):
        at_rate = tries.setdefault(event.data["rate_per_s"], {})
        at_rate.setdefault(event.data["attempt"], []).append(reading_from_json(event.data))
    return [
        point_of(rate, attempts[max(attempts)], error_ms_max=error_ms_max, processes=processes)
        for rate, attempts in sorted(tries.items())
    ]


def judge_run(run: Run) -> list[Finding]:
    """Return what this client is certified for: a rate up to which all that were tried are good."""
    curve, processes = curve_of(run), int(run.header.spec["processes"])
    best: Point | None = None
    for point in curve:
        if point.against:
            break
        best = point
    if best is None:
        observed = curve[0].against if curve else "nothing was measured"
    else:
        observed = (
            f"{best.events_per_s:,.0f} events/s on {best.streams} streams{_by_tls(run)} with {processes} "
            f"process(es): at p99 {best.ttft_error_ms_p99:.2f} ms to first token, "
            f"{best.gap_error_ms_p99:.2f} ms in gaps, {best.cpu_us_per_event:.1f} µs of CPU per event"
        )
    return [
        Finding(
            rule="client-range",
            subject="client:load",
            outcome=Outcome.INCONCLUSIVE if best is None else Outcome.PASS,
            observed=observed,
            expected=f"within {run.header.spec['error_ms_max']:g} ms of the true times at p99",
            unit="events/s",
            evidence={"curve": [asdict(point) for point in curve]},
            next_step="" if best is not None else "free this machine of other work, then run it again",
        )
    ]


def _by_tls(run: Run) -> str:
    return " over TLS" if run.header.spec.get("is_tls") else ""


def render_curve(run: Run) -> Table:
    """Return the curve as a table."""
    from rich.table import Table

    title = f"{run.header.spec['processes']} client process(es), one golden endpoint each{_by_tls(run)}"
    table = Table(title=title, title_justify="left")
    for name in ("offered/s", "read/s", "streams", "CPU µs/event", "TTFT off by ms p50", "p99"):
        table.add_column(name, justify="right")
    for name in ("gap off by ms p50", "p99", "endpoint late by ms p50", "p99"):
        table.add_column(name, justify="right")
    table.add_column("certified")
    for point in curve_of(run):
        figures = (
            point.cpu_us_per_event,
            point.ttft_error_ms_p50,
            point.ttft_error_ms_p99,
            point.gap_error_ms_p50,
            point.gap_error_ms_p99,
            point.jitter_ms_p50,
            point.jitter_ms_p99,
        )
        table.add_row(
            f"{point.offered_per_s:,.0f}",
            f"{point.events_per_s:,.0f}",
            str(point.streams),
            *("–" if figure is None else f"{figure:.2f}" for figure in figures),
            point.against or "yes",
        )
    return table


def print_curve(run: Run) -> None:
    """Print the table on standard output."""
    from rich.console import Console

    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(render_curve(run))


def _machine() -> JsonObject:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
    }

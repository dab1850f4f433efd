"""Puts a load process's rows and figures into the run's record, at least once a second, while it runs."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import fields

import gevent

from loadtests.sending.dispatcher import Dispatcher
from probes.event import to_json_line
from probes.request import Request
from reports.record import REQUESTS_FOLDER, RunWriter

_FLUSH_S = 0.25
_FIGURES_S = 1.0
# Rows turned into text before the hub gets to read answers again.
_ROWS_PER_TURN = 4
_NAMES = tuple(field.name for field in fields(Request))


class Recorder:
    """Takes finished rows from the hub and writes them from a greenlet of its own."""

    def __init__(self, writer: RunWriter, on_written: Callable[[Request], None], *, worker: int) -> None:
        self._writer = writer
        self._on_written = on_written
        self._worker = worker
        self._rows: deque[Request] = deque()
        self._cpu_s, self._wall_s = _cpu_s(), time.monotonic()
        self._clock_ns = _wall_minus_monotonic_ns()

    def put(self, row: Request) -> None:
        """Take a row; never blocks, so that the hub may call it."""
        self._rows.append(row)

    def run(self, dispatcher: Dispatcher) -> None:
        """Write until killed."""
        due = time.monotonic()
        while True:
            gevent.sleep(_FLUSH_S)
            self.flush()
            if time.monotonic() >= due:
                due += _FIGURES_S
                self.write_figures(dispatcher)

    def flush(self) -> None:
        """Write the rows that are there.

        Raises:
            RecordError: the disk is full.
        """
        while self._rows:
            rows = [self._rows.popleft() for _ in range(min(_ROWS_PER_TURN, len(self._rows)))]
            lines = "".join(to_json_line({name: getattr(row, name) for name in _NAMES}) for row in rows)
            self._writer.append_line(f"{REQUESTS_FOLDER}/worker-{self._worker}.ndjson", lines)
            for row in rows:
                self._on_written(row)
            gevent.sleep(0)

    def write_figures(self, dispatcher: Dispatcher) -> None:
        """Write how this client itself is doing."""
        counts = dispatcher.counts
        cpu_s, wall_s, clock_ns = _cpu_s(), time.monotonic(), _wall_minus_monotonic_ns()
        self._writer.sample(
            f"client-{self._worker}",
            {
                "t_ns": time.time_ns(),
                "subject": f"client:{self._worker}",
                "in_flight": dispatcher.in_flight,
                "arrivals": counts.arrivals,
                "ended": counts.ended,
                "failed": counts.failed,
                "dropped": counts.dropped,
                "events": counts.events,
                "lateness_ms_max": round(counts.lateness_ms_max, 3),
                "lag_ms_max": round(counts.lag_ms_max, 3),
                "busy_ms_max": round(dispatcher.polls.take_busy_ms_max(), 3),
                "cpu_pct": round(100 * (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-6), 1),
                "clock_step_ms": round((clock_ns - self._clock_ns) / 1e6, 3),
            },
        )
        counts.lateness_ms_max = counts.lag_ms_max = 0.0
        self._cpu_s, self._wall_s, self._clock_ns = cpu_s, wall_s, clock_ns


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _wall_minus_monotonic_ns() -> int:
    return time.time_ns() - time.monotonic_ns()

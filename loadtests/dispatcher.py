"""Walks one absolute schedule in an open loop: what is due is sent, however slow the answers are.

An arrival that finds ``in_flight_max`` requests under way is dropped, and its row says so: it is neither
delayed in silence nor left out.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import gevent
import gevent.event

from loadtests.arrivals import arrival_times_s, share_of
from loadtests.connections import Connections, Target
from loadtests.plan import LoadPlan
from loadtests.poll_clock import PollClock
from loadtests.prompts import make_body, make_prompt
from loadtests.reader import Errand, Exchange
from loadtests.workload import COMPLETIONS_PATH
from probes.errors import TargetError
from probes.request import Request

_DEADLINE_CHECK_S = 0.1
_DISPATCHES_PER_TURN = 8  # of late arrivals, before the hub gets to read answers again


@dataclass(slots=True)
class Counts:
    """What one worker has done so far."""

    arrivals: int = 0
    dropped: int = 0
    ended: int = 0
    failed: int = 0
    events: int = 0
    lateness_ms_max: float = 0.0  # since the figures were last taken
    lag_ms_max: float = 0.0  # the same


class Dispatcher:
    """Sends one worker's share of the schedule; ``on_row`` gets every finished request, in the hub."""

    def __init__(
        self, plan: LoadPlan, target: Target, on_row: Callable[[Request], None], *, worker: int, workers: int
    ) -> None:
        self.counts = Counts()
        self.polls = PollClock()
        self._plan = plan
        self._workload = plan.workload
        self._on_row = on_row
        self._worker, self._workers = worker, workers
        self._connections = Connections(target, self.polls)
        self._in_flight: set[Exchange] = set()
        self._finish = gevent.event.Event()
        self._drained = gevent.event.Event()

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return len(self._in_flight)

    @property
    def is_finishing(self) -> bool:
        """Whether no more arrivals are sent."""
        return bool(self._finish.is_set())

    def finish(self) -> None:
        """Send no more; what is under way goes on to its end."""
        self._finish.set()

    def walk(self, *, t0_ns: int) -> None:
        """Send every arrival of the share at its time, counted from ``t0_ns`` of the wall clock."""
        t0_s = time.monotonic() + (t0_ns - time.time_ns()) / 1e9
        watch = gevent.spawn(self._watch_deadlines)
        times_s = arrival_times_s(
            self._workload.arrivals, duration_s=self._workload.duration_s, seed=self._plan.seed
        )
        try:
            for index, offset_s in share_of(times_s, worker=self._worker, workers=self._workers):
                errand = self._prepare(index, t0_ns + round(offset_s * 1e9))
                if self._wait_until(t0_s + offset_s):
                    break
                self._dispatch(errand, late_ms=(time.monotonic() - t0_s - offset_s) * 1000)
            else:
                self._wait_until(t0_s + self._workload.duration_s)
        finally:
            watch.kill()

    def _wait_until(self, due_s: float) -> bool:
        """Wait for a moment; return whether the run is to finish before it."""
        wait_s = due_s - time.monotonic()
        if wait_s > 0:
            self._finish.wait(wait_s)
            return self.is_finishing
        if self.counts.arrivals % _DISPATCHES_PER_TURN == 0:
            gevent.sleep(0)
        return self.is_finishing

    def _prepare(self, index: int, t_intended_ns: int) -> Errand:
        prompt = make_prompt(self._workload, seed=self._plan.seed, index=index)
        return Errand(
            index=index,
            worker=self._worker,
            t_intended_ns=t_intended_ns,
            body=make_body(self._workload, prompt, model=self._plan.model),
            output_tokens=prompt.output_tokens,
            request_id=f"{self._plan.run.name}-{index}",
        )

    def _dispatch(self, errand: Errand, *, late_ms: float) -> None:
        self.counts.arrivals += 1
        self.counts.lateness_ms_max = max(self.counts.lateness_ms_max, late_ms)
        if len(self._in_flight) >= self._workload.in_flight_max:
            self.counts.dropped += 1
            self._note(_dropped(errand, self._plan.url, self._workload.in_flight_max))
            return
        exchange = Exchange(errand, self._connections, self._on_end)
        self._in_flight.add(exchange)
        exchange.begin()

    def _on_end(self, exchange: Exchange) -> None:
        self._in_flight.discard(exchange)
        assert exchange.row is not None
        self._note(exchange.row)
        if not self._in_flight:
            self._drained.set()

    def _note(self, row: Request) -> None:
        counts = self.counts
        counts.ended += 1
        counts.failed += row.error is not None
        counts.events += row.events
        counts.lag_ms_max = max(counts.lag_ms_max, row.lag_ms_max)
        self._on_row(row)

    def drain(self, *, timeout_s: float) -> None:
        """Wait for what is under way; what is left after the time is ended as ``abandoned``."""
        watch = gevent.spawn(self._watch_deadlines)
        self._drained.clear()
        if self._in_flight:
            self._drained.wait(timeout_s)
        watch.kill()
        self.abandon("was still under way when the run ended")

    def abandon(self, reason: str) -> None:
        """End everything under way now."""
        for exchange in list(self._in_flight):
            exchange.fail("abandoned", reason)
        self._connections.close()

    def _watch_deadlines(self) -> None:
        while True:
            gevent.sleep(_DEADLINE_CHECK_S)
            now_s = time.monotonic()
            for exchange in list(self._in_flight):
                exchange.check_deadlines(now_s)


def _dropped(errand: Errand, url: str, in_flight_max: int) -> Request:
    return Request(
        index=errand.index,
        worker=errand.worker,
        endpoint=url,
        t_intended_ns=errand.t_intended_ns,
        t_sent_ns=None,
        t_first_ns=None,
        t_last_ns=None,
        t_end_ns=None,
        connect_ms=None,
        status=None,
        error="dropped",
        error_detail=f"{in_flight_max} requests were under way already",
    )


def make_target(plan: LoadPlan, *, api_key: str | None) -> Target:
    """Resolve the endpoint's address once and put together what every request shares.

    Raises:
        TargetError: the name cannot be resolved.
    """
    parts = urlsplit(plan.url)
    assert parts.hostname is not None
    endpoint = plan.workload.endpoint
    port = parts.port or 80
    try:
        family, _, _, _, address = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise TargetError(f"{plan.url}: the host name cannot be resolved: {error}") from error
    return Target(
        url=plan.url,
        host=parts.netloc,
        family=family,
        address=address,
        path=parts.path.rstrip("/") + COMPLETIONS_PATH,
        head_fields="" if api_key is None else f"Authorization: Bearer {api_key}\r\n",
        is_streamed=endpoint.stream,
        timeout_s=endpoint.timeout_s,
        connect_timeout_s=endpoint.connect_timeout_s,
        first_byte_timeout_s=endpoint.first_byte_timeout_s or endpoint.timeout_s,
        reuses_connections=endpoint.reuse_connections,
    )

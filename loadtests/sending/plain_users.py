"""Users as plain Locust has them, each with one request under way, read by the reader of our own runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gevent.event

from loadtests.plan import LoadPlan
from loadtests.preflight import check_endpoint
from loadtests.reading.connections import Connections
from loadtests.reading.poll_clock import PollClock
from loadtests.reading.reader import Errand, Exchange
from loadtests.sending.dispatcher import make_target
from loadtests.spec.workload import WorkloadSpec, load_workload, override, read_headers
from loadtests.traffic.prompts import Prompts, make_body
from probes.errors import ConfigError
from probes.metric import METRICS
from probes.request import Request

_DEADLINE_CHECK_S = 0.1
WORKER_STRIDE = 1_000_000  # between the prompts of two workers, so that none is sent by both
# What is asked where no workload file is given.
_DEFAULT = {
    "name": "locust",
    "arrivals": {"kind": "closed", "users": 1},
    "duration_s": 3600,
    "prompt": {
        "input_tokens": {"kind": "constant", "value": 128},
        "output_tokens": {"kind": "constant", "value": 64},
    },
}


def _tokens_per_s(row: Request) -> Sequence[float]:
    tpot_ms = METRICS["tpot_ms"].read(row)
    return tuple(1000 / value for value in tpot_ms if value > 0)


def _of_good(name: str) -> Callable[[Request], Sequence[float]]:
    read = METRICS[name].read
    return lambda row: read(row) if row.is_good else ()


# Rows of Locust's table beside the requests themselves: name, unit (in the column of the method), values.
ROWS: tuple[tuple[str, str, Callable[[Request], Sequence[float]]], ...] = (
    ("time to first token", "ms", _of_good("ttft_ms")),
    ("gap between tokens", "ms", _of_good("itl_ms")),
    ("time per output token", "ms", _of_good("tpot_ms")),
    ("tokens/s of one answer", "1/s", lambda row: _tokens_per_s(row) if row.is_good else ()),
)


def load_plain(workload: str | None, *, host: str | None, seed: int, numbers: Iterator[int]) -> PlainUsers:
    """Return the users' common part, for a workload file and an address; ``numbers`` are the prompts'.

    Raises:
        ConfigError: there is no address, or the file is no workload.
        TargetError: the endpoint does not answer.
    """
    spec = WorkloadSpec.model_validate(_DEFAULT) if workload is None else load_workload(Path(workload))
    spec = override(spec, url=host or None, duration_s=None)
    if spec.endpoints:
        raise ConfigError("endpoints: plain Locust has one; run this workload with `overproof load run`")
    if spec.endpoint.url is None:
        raise ConfigError("no endpoint: give --host http://host:8000, or a workload with endpoint.url")
    model = check_endpoint(spec.endpoint.url, spec.endpoint)
    plan = LoadPlan(run=Path("locust"), spec=spec, seed=seed, url=spec.endpoint.url, model=model)
    return PlainUsers(plan, numbers)


class PlainUsers:
    """What all users of one process share: connections, prompts, the reader's clock."""

    def __init__(self, plan: LoadPlan, numbers: Iterator[int]) -> None:
        self._plan, self._workload = plan, plan.workload
        self._polls = PollClock()
        target = make_target(plan, headers=read_headers(self._workload.endpoint))
        self._connections = Connections(target, self._polls)
        self._prompts = Prompts(self._workload.prompts, seed=plan.seed, scale=plan.words)
        self._numbers = numbers

    @property
    def path(self) -> str:
        """Return what requests are sent to, below the address."""
        return self._workload.endpoint.path

    def ask(self) -> Request:
        """Make one request from a user's greenlet, and return its row when the answer has ended."""
        number, endpoint = next(self._numbers), self._workload.endpoint
        prompt = self._prompts.prompt(number)
        body = make_body(
            prompt,
            api=endpoint.api,
            model=self._plan.model,
            is_streamed=endpoint.stream,
            extra=endpoint.extra_body,
        )
        errand = Errand(
            index=number,
            worker=0,
            t_intended_ns=time.time_ns(),
            body=body,
            output_tokens=prompt.output_tokens,
            request_id=f"locust-{number}",
        )
        ended = gevent.event.Event()
        exchange = Exchange(errand, self._connections, lambda _: ended.set())
        exchange.begin()
        try:
            while not ended.wait(_DEADLINE_CHECK_S):
                exchange.check_deadlines(time.monotonic())
        finally:
            exchange.fail("abandoned", "the user was stopped")  # does nothing to what has ended
        assert exchange.row is not None
        return exchange.row

    def think_s(self) -> float:
        """Return how long a user thinks before its next request; an open loop's users do not."""
        closed = self._workload.arrivals.closed
        if closed is None:
            return 0.0
        return closed.think.draw_s(seed=self._plan.seed, chain=0, turn=next(self._numbers))

    def close(self) -> None:
        """Close what waits for a next request."""
        self._connections.close()
        self._polls.close()
        self._prompts.close()

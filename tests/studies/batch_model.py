"""The simulated endpoint's own model of batching, run without clock or socket over Poisson arrivals."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from loadtests.endpoint.batching import Batch, BatchLimits, Sequence
from probes.request import Request
from tests.probes.rows import T0_NS, answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An endpoint whose answers are all of one size."""

    slots: int
    tokens: int
    step_ms: float

    @property
    def capacity_per_s(self) -> float:
        """The rate that it can serve, by construction."""
        return self.slots / (self.tokens * self.step_ms / 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One answer, in seconds from the first moment on."""

    arrived_s: float
    first_s: float
    ended_s: float


def poisson(rate_per_s: float, *, requests: int, seed: int) -> Iterator[float]:
    """Yield the moments of arrival, in seconds."""
    chance, at_s = random.Random(seed), 0.0
    for _ in range(requests):
        at_s += chance.expovariate(rate_per_s)
        yield at_s


def serve(server: Server, moments_s: Iterator[float]) -> list[Served]:
    """Serve arrivals from an empty start until the last is answered; in the order of their ends."""
    batch = Batch(
        BatchLimits(
            slots=server.slots,
            queue_max=10**9,
            prefill_tokens_per_s=1e9,
            decode_step_s=server.step_ms / 1000,
        )
    )
    coming, now_s = deque(moments_s), 0.0
    arrived: dict[Sequence, float] = {}
    first: dict[Sequence, float] = {}
    served = []
    while coming or arrived:
        if not arrived:
            now_s = max(now_s, coming[0])
        while coming and coming[0] <= now_s:
            one = Sequence(input_tokens=16, output_tokens=server.tokens)
            arrived[one] = coming.popleft()
            batch.submit(one)
        now_s += batch.begin_step() or 0.0
        for one in batch.end_step():
            first.setdefault(one, now_s)
            if one.is_finished:
                served.append(
                    Served(arrived_s=arrived.pop(one), first_s=first.pop(one), ended_s=now_s),
                )
    return served


def rows_of(server: Server, served: list[Served]) -> list[Request]:
    """Return them as the rows of a load run, in the order of arrival."""
    return [_row(server, i, one) for i, one in enumerate(sorted(served, key=lambda one: one.arrived_s))]


def _row(server: Server, index: int, one: Served) -> Request:
    arrived_ns, first_ns, ended_ns = (
        T0_NS + round(t * 1e9) for t in (one.arrived_s, one.first_s, one.ended_s)
    )
    return answered(
        index,
        t_intended_ns=arrived_ns,
        t_sent_ns=arrived_ns,
        t_first_ns=first_ns,
        t_last_ns=ended_ns,
        t_end_ns=ended_ns,
        tokens_out=server.tokens,
    )


def late_share(
    server: Server, rate_per_s: float, *, bound_ms: float, requests: int = 200_000, seed: int = 1
) -> float:
    """Return the long-run share of first tokens beyond the bound."""
    served = serve(server, poisson(rate_per_s, requests=requests, seed=seed))
    return sum((one.first_s - one.arrived_s) * 1000 > bound_ms for one in served) / len(served)


def true_limit(server: Server, *, bound_ms: float, objective: float, requests: int = 200_000) -> float:
    """Return the rate at which just the allowed share is late."""
    low, high = 0.5 * server.capacity_per_s, server.capacity_per_s
    for _ in range(8):
        middle = (low + high) / 2
        if late_share(server, middle, bound_ms=bound_ms, requests=requests) <= 1 - objective:
            low = middle
        else:
            high = middle
    return low

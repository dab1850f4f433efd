"""Asks a lost endpoint one short question now and then, in a greenlet, until it answers."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
import gevent.event

from loadtests.plan import Destination, LoadPlan
from loadtests.reading.connections import Connections
from loadtests.reading.reader import Errand, Exchange
from loadtests.sending.spending import Spending, most
from loadtests.sending.task_requests import choices_of
from loadtests.traffic.prompts import Prompt, make_body
from probes.request import Request

_DEADLINE_CHECK_S = 0.1
_PROMPT = Prompt(messages=({"role": "user", "content": "Say ok."},), output_tokens=1)


def ask_until(
    is_back: Callable[[Request], bool],
    plan: LoadPlan,
    place: int,
    connections: Connections,
    *,
    worker: int,
    spending: Spending,
) -> int:
    """Ask as often as the workload wants until ``is_back`` says so of an answer; return how often that was.

    Questions count against the budget and are no arrivals: they have no row. One that the budget forbids is
    left out.
    """
    fail_over = plan.spec.fail_over
    assert fail_over is not None
    destination, asked = plan.destinations[place], 0
    while True:
        gevent.sleep(fail_over.probe_every_s)
        errand = _errand(plan, destination, place, worker=worker, number=asked)
        cost = most(
            body_bytes=len(errand.body), output_tokens=1, choices=choices_of(destination.endpoint.spec)
        )
        if spending.admit(errand.index, cost):
            continue
        asked += 1
        row = _ask(errand, connections)
        spending.settle(row)
        if is_back(row):
            return asked


def _errand(plan: LoadPlan, destination: Destination, place: int, *, worker: int, number: int) -> Errand:
    spec = destination.endpoint.spec
    return Errand(
        index=-1 - place,  # of no arrival
        worker=worker,
        t_intended_ns=time.time_ns(),
        body=make_body(
            _PROMPT, api=spec.api, model=destination.model, is_streamed=spec.stream, extra=spec.body
        ),
        output_tokens=1,
        request_id=f"{plan.run.name}-back-{place}-{worker}-{number}",
        endpoint=destination.endpoint.name,
    )


def _ask(errand: Errand, connections: Connections) -> Request:
    ended = gevent.event.Event()
    exchange = Exchange(errand, connections, lambda _: ended.set())
    exchange.begin()
    try:
        while not ended.wait(_DEADLINE_CHECK_S):
            exchange.check_deadlines(time.monotonic())
    finally:
        exchange.fail("abandoned", "the load ended")  # does nothing to what has ended
    assert exchange.row is not None
    return exchange.row

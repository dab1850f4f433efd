"""Asks each checked task once of each endpoint, one at a time, before the load.

In a process that the controller starts. It uses the reader that the load uses, so that what differs later is
the load.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import gevent.event

from loadtests import plan as plans
from loadtests.plan import Destination, LoadPlan, load_plan
from loadtests.reading.connections import Connections
from loadtests.reading.poll_clock import PollClock
from loadtests.reading.reader import Errand, Exchange
from loadtests.sending.dispatcher import make_targets
from loadtests.sending.guards import Guards, Stop
from loadtests.sending.spending import Tokens
from loadtests.sending.task_requests import TEXT_CHARS_MAX, choices_of, task_body, task_prompt
from probes.child import watch_lifeline
from probes.errors import SuiteError
from reports.record import RunWriter, load_header

_LOOK_S = 0.1


def ask_all(plan: LoadPlan, writer: RunWriter) -> None:
    """Ask every task within the time for it, and write each answer down."""
    workload = plan.workload
    assert workload.tasks is not None
    guards = Guards(
        workload.guards,
        slos=(),
        choices=choices_of(plan.spec.endpoint),
        spent=Tokens(sent=plan.tokens_sent, received=plan.tokens_received),
    )
    polls = PollClock()
    asked, stop = 0, None
    for target, destination in zip(make_targets(plan), plan.destinations, strict=True):
        connections = Connections(target, polls)
        deadline_s = time.monotonic() + workload.tasks.idle_s_max
        number = 0
        while stop is None and number < workload.tasks.count and time.monotonic() < deadline_s:
            stop = _ask(plan, number, destination, connections, guards, writer, account=asked)
            number, asked = number + 1, asked + 1
        connections.close()
    polls.close()
    if stop is not None:
        writer.event(
            "load", plans.GUARD, guard=stop.guard, detail=f"before the load: {stop.detail}", worker=-1
        )
    writer.event("load", plans.IDLE_ENDED, asked=asked, **guards.spending.to_json())


def _ask(
    plan: LoadPlan,
    number: int,
    destination: Destination,
    connections: Connections,
    guards: Guards,
    writer: RunWriter,
    *,
    account: int,
) -> Stop | None:
    prompt = task_prompt(plan, number)
    body = task_body(plan, prompt, model=destination.model)
    stop = guards.admit(account, body_bytes=len(body), output_tokens=prompt.output_tokens)
    if stop is not None:
        return stop
    ended = gevent.event.Event()
    errand = Errand(
        index=account,
        worker=0,
        t_intended_ns=time.time_ns(),
        body=body,
        output_tokens=prompt.output_tokens,
        request_id=f"{plan.run.name}-idle-{account}",
        keeps_text=True,
    )
    exchange = Exchange(errand, connections, lambda _: ended.set())
    exchange.begin()
    while not ended.wait(_LOOK_S):
        exchange.check_deadlines(time.monotonic())
        fault = guards.look(exchange, output_tokens=prompt.output_tokens, is_watched=False)
        if fault is not None:
            exchange.fail(*fault)
    row = exchange.row
    assert row is not None
    writer.sample(
        plans.IDLE_ANSWERS,
        {
            "t_ns": time.time_ns(),
            "subject": f"replica:{row.replica}",
            "number": number,
            "endpoint": destination.endpoint.name or "",
            "replica": row.replica,
            "error": row.error or "",
            "error_detail": row.error_detail,
            "text": exchange.text[:TEXT_CHARS_MAX],
            "tokens_in": row.tokens_in,
            "tokens_out": row.tokens_out,
        },
    )
    return guards.take(row)


def _main() -> int:
    try:
        plan = load_plan(Path(sys.argv[1]))
        watch_lifeline(lambda: os._exit(1))
        ask_all(plan, RunWriter(plan.run, load_header(plan.run)))
    except SuiteError as error:
        sys.stderr.write(f"overproof load: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())

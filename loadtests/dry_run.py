"""What a load run would send and cost at most: nothing is sent, no name is resolved, no socket opened."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.plan import LoadPlan
from loadtests.preflight import MODEL_DEFAULT
from loadtests.rules.verdict_size import VerdictSize, render_sizes, verdict_sizes
from loadtests.sending.routes import Routes
from loadtests.sending.spending import Tokens, most
from loadtests.sending.task_requests import choices_of, task_body, task_prompt
from loadtests.spec.allowed_hosts import check_host
from loadtests.spec.inputs import check_inputs
from loadtests.spec.workload import Workload, WorkloadSpec, read_headers
from loadtests.traffic.arrivals import CHAIN_STRIDE, schedule
from loadtests.traffic.prompts import Prompts, make_body

REQUESTS_COUNTED_MAX = 20_000  # of a longer schedule, the rest is taken to cost the same
_MODEL_BYTES = 64  # the model's name is asked for later, where the workload gives none
_SHOWN, _SHOWN_CHARS = 3, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What would be sent."""

    workload: str
    url: str
    endpoints: dict[str, int]  # of several: how many of the requests that were counted each is to get
    requests: int | None  # None: it follows from the answers how many there are (closed loop, sessions)
    requests_idle: int  # checked tasks before the load
    first_s: list[float]  # when the first are due
    duration_s: float
    prompts: list[str]  # of the first requests, shortened
    body_bytes_max: int  # of those that were counted
    tokens_most: int | None  # at most; None: not known without a number of requests
    tokens_most_each: int  # of the most expensive request counted
    is_estimate: bool  # the schedule is so long that only its beginning was counted
    money_most: float | None  # None: no prices are given, or the tokens are not known
    tokens_max: int | None  # the budget
    money_max: float | None
    verdict_sizes: list[VerdictSize]  # how many requests each promise needs to be decided


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """One request as it would be sent."""

    at_s: float
    text: str
    body_bytes: int
    most: Tokens


def plan_dry(spec: WorkloadSpec, *, seed: int) -> DryRun:
    """Work out what a run would send.

    Raises:
        ConfigError: a file or secret is missing, or the endpoint is not on the list of allowed hosts.
    """
    for endpoint in spec.named_endpoints:
        if endpoint.spec.url is not None:
            check_host(endpoint.spec.url, spec.allowed_hosts)
        read_headers(endpoint.spec)
    workload = spec.to_workload()
    check_inputs(workload, seed=seed)
    names = [endpoint.spec.model or MODEL_DEFAULT for endpoint in spec.named_endpoints]
    plan = LoadPlan(run=Path(), spec=spec, seed=seed, url="", model=max(names, key=len))
    requests = _requests(plan)
    tasks = 0 if workload.tasks is None else workload.tasks.count
    idle = [_task(plan, n, at_s=0.0) for n in range(tasks)] * len(workload.endpoints)
    count = None if workload.is_chained else _count(plan, counted=len(requests))
    known = sum((one.most for one in [*requests, *idle]), Tokens())
    tokens = None
    if count is not None:
        more = max(0, count - len(requests)) / max(1, len(requests))
        sent = sum(one.most.sent for one in requests) * more
        received = sum(one.most.received for one in requests) * more
        tokens = known + Tokens(sent=round(sent), received=round(received))
    budget = spec.guards.to_budget()
    return DryRun(
        workload=spec.name,
        url=_where(spec),
        endpoints=_parts(workload, seed=seed, requests=len(requests)),
        requests=count,
        requests_idle=len(idle),
        first_s=[round(one.at_s, 3) for one in requests[:_SHOWN]],
        duration_s=workload.duration_s,
        prompts=[one.text[:_SHOWN_CHARS] for one in requests[:_SHOWN]],
        body_bytes_max=max((one.body_bytes for one in requests), default=0),
        tokens_most=None if tokens is None else tokens.total,
        tokens_most_each=max((one.most.total for one in requests), default=0),
        is_estimate=count is not None and count > len(requests),
        money_most=None if tokens is None or budget.prices is None else budget.prices.of(tokens),
        tokens_max=budget.tokens,
        money_max=budget.money,
        verdict_sizes=verdict_sizes(workload, requests=count),
    )


def _where(spec: WorkloadSpec) -> str:
    return ", ".join(
        endpoint.where + (endpoint.spec.url or "the built-in simulated endpoint")
        for endpoint in spec.named_endpoints
    )


def _parts(workload: Workload, *, seed: int, requests: int) -> dict[str, int]:
    if not workload.has_several:
        return {}
    routes, stride = Routes(workload, seed=seed), CHAIN_STRIDE if workload.is_chained else 1
    counts = Counter(routes.planned(number * stride) for number in range(requests))
    return {str(one.name): counts[place] for place, one in enumerate(workload.endpoints)}


def _requests(plan: LoadPlan) -> list[_Request]:
    """Return the first requests; of a closed loop or of sessions, what each user begins with."""
    workload, found = plan.workload, []
    prompts = Prompts(workload.prompts, seed=plan.seed)
    arrivals = schedule(workload.arrivals, duration_s=workload.duration_s, seed=plan.seed)
    for index, arrival in enumerate(itertools.islice(arrivals, REQUESTS_COUNTED_MAX)):
        number = None if workload.tasks is None else workload.tasks.number_at(index, seed=plan.seed)
        if number is not None:
            found.append(_task(plan, number, at_s=arrival.at_s))
            continue
        prompt = prompts.prompt(index, row=arrival.row)
        body = make_body(
            prompt,
            api=workload.endpoint.api,
            model=plan.model,
            is_streamed=workload.endpoint.stream,
            extra=workload.endpoint.extra_body,
        )
        text = " ".join(str(message.get("content")) for message in prompt.messages)
        found.append(_sized(plan, arrival.at_s, text, body, prompt.output_tokens))
    prompts.close()
    return found


def _task(plan: LoadPlan, number: int, *, at_s: float) -> _Request:
    prompt = task_prompt(plan, number)
    text = str(prompt.messages[0]["content"])
    return _sized(plan, at_s, text, task_body(plan, prompt), prompt.output_tokens)


def _sized(plan: LoadPlan, at_s: float, text: str, body: bytes, output_tokens: int) -> _Request:
    is_known = all(endpoint.spec.model is not None for endpoint in plan.workload.endpoints)
    size = len(body) + (0 if is_known else _MODEL_BYTES)
    cost = most(body_bytes=size, output_tokens=output_tokens, choices=choices_of(plan.workload.endpoint))
    return _Request(at_s=at_s, text=text, body_bytes=size, most=cost)


def _count(plan: LoadPlan, *, counted: int) -> int:
    if counted < REQUESTS_COUNTED_MAX:
        return counted
    workload = plan.workload
    return sum(1 for _ in schedule(workload.arrivals, duration_s=workload.duration_s, seed=plan.seed))


def render_dry(dry: DryRun, *, as_json: bool) -> str:
    """Return it as text, or as one JSON document."""
    if as_json:
        return json.dumps(asdict(dry))
    requests = "as many as the answers leave time for" if dry.requests is None else f"{dry.requests}"
    tokens = "not known" if dry.tokens_most is None else f"{dry.tokens_most}"
    if dry.is_estimate:
        tokens += f" (estimated from the first {REQUESTS_COUNTED_MAX} requests)"
    lines = [
        f"{dry.workload}: nothing was sent to {dry.url}",
        f"  requests      {requests} in {dry.duration_s:g} s, {dry.requests_idle} checked tasks before",
        *([f"  each gets     {_parts_text(dry)}"] if dry.endpoints else []),
        f"  body at most  {dry.body_bytes_max} bytes; a byte is counted as a token",
        f"  tokens        at most {tokens}; {dry.tokens_most_each} for the most expensive request",
        f"  money         {'not known' if dry.money_most is None else f'at most {dry.money_most:.4f}'}",
        f"  budget        {_budget(dry)}",
        "  beside that   a few short questions right before the load",
    ]
    lines += [f"  to decide     {line}" for line in render_sizes(dry.verdict_sizes)]
    lines += [f"  at {at_s:g} s: {text}" for at_s, text in zip(dry.first_s, dry.prompts, strict=True)]
    return "\n".join(lines)


def _parts_text(dry: DryRun) -> str:
    total = max(1, sum(dry.endpoints.values()))
    return ", ".join(f"{name} {count} ({count / total:.1%})" for name, count in dry.endpoints.items())


def _budget(dry: DryRun) -> str:
    limits = [
        text
        for value, text in (
            (dry.tokens_max, f"{dry.tokens_max} tokens"),
            (dry.money_max, f"{dry.money_max} of money"),
        )
        if value is not None
    ]
    return " and ".join(limits) or "none (guards.tokens_max, guards.money_max)"

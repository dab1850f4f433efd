"""Checked tasks as requests: the same bytes when idle and under load."""

from __future__ import annotations

from loadtests.plan import LoadPlan
from loadtests.spec.workload import EndpointSpec
from loadtests.traffic.prompts import Prompt, make_body

TEXT_CHARS_MAX = 4000  # of an answer, in the record


def task_prompt(plan: LoadPlan, number: int) -> Prompt:
    """Return the prompt of one task."""
    tasks = plan.workload.tasks
    assert tasks is not None
    message = {"role": "user", "content": tasks.task(number, seed=plan.seed).prompt}
    return Prompt(messages=(message,), output_tokens=tasks.output_tokens)


def task_body(plan: LoadPlan, prompt: Prompt, *, model: str | None = None) -> bytes:
    """Return the body of a task's request: the answer may be as short as it is."""
    endpoint = plan.spec.endpoint
    return make_body(
        prompt,
        api=endpoint.api,
        model=model or plan.model,
        is_streamed=endpoint.stream,
        extra=endpoint.body,
    )


def choices_of(endpoint: EndpointSpec) -> int:
    """Return how many answers each request asks for."""
    wanted = endpoint.body.get("n", 1)
    return wanted if isinstance(wanted, int) and wanted > 0 else 1

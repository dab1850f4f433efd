"""Labs for tests: quick ones, and what a test needs to see of them."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from experiments.lab.autoscaler import ScalePlan
from experiments.lab.control import Lab, read_lab
from experiments.lab.supervisor import LabPlan, all_serve, lab_command, log_file
from probes.child import end_child, start_child, wait_until


@contextlib.contextmanager
def running_lab(
    folder: Path,
    *,
    replicas: int = 3,
    is_restarting: bool = True,
    backoff_s: float = 0.2,
    load_s: float = 0.3,
    liveness_s: float = 1.5,
    step_work_ms: float = 0.0,
    scale: ScalePlan | None = None,
) -> Iterator[Lab]:
    """A lab that is up, as a child of the test."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = LabPlan(
        folder=folder,
        replicas=replicas,
        is_restarting=is_restarting,
        backoff_s=backoff_s,
        load_s=load_s,
        liveness_s=liveness_s,
        step_work_ms=step_work_ms,
        scale=scale,
    )
    with log_file(folder).open("w") as log:
        child = start_child(lab_command(plan, lifeline=True), stdout=log, stderr=log)
    try:
        assert wait_until(lambda: all_serve(folder), timeout_s=60), log_file(folder).read_text()
        yield read_lab(folder)
    finally:
        end_child(child)


def ask(url: str, *, max_tokens: int = 4, timeout_s: float = 10) -> tuple[str, bytes]:
    """Ask one streamed chat question; return the replica that answered and the answer's bytes."""
    body = {"model": "m", "stream": True, "max_tokens": max_tokens}
    body |= {"messages": [{"role": "user", "content": "hello"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        return reply.headers["x-replica"], reply.read()

"""Probes for Chaos Toolkit on the cluster of a game day's target: what it says of its health.

They break nothing. Of the target's namespaces only, but for nodes. Each shows an ``outcome`` and one line,
``observed``; the report has both on its timeline.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from experiments.kube.choosing.aim import Aim, aim_now
from experiments.kube.choosing.allowed import read_or_none
from experiments.kube.client import KubeClient
from experiments.kube.pods.pod import is_finished, is_ready
from experiments.kube.pods.workloads import DEPLOYMENT, path_of, pods_of
from experiments.kube.watching.observed import (
    JOB_LABELS,
    JOB_PATHS,
    finding,
    job_state,
    judge_budgets,
    judge_gpus,
    judge_job,
    judge_restarts,
    judge_warnings,
)
from experiments.kube.watching.pod_view import PodView
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from probes.outcome import Outcome

_LOG_LINES = 200  # of a log's end in which its last step is looked for
_LOOK_S = 1.0


def _aimed() -> tuple[Aim, KubeClient]:
    aim = aim_now()
    return aim, aim.reach()[0]


def _listed(what: str, namespace: str, **query: object) -> list[JsonObject]:
    aim, client = _aimed()
    spaces = aim.namespaces(namespace)
    return [row for space in spaces for row in client.listed(what.format(space), **query)]


def restarts_at_most(
    restarts_max: int = 0, label_selector: str = "", namespace: str = "", window_s: float | None = None
) -> JsonObject:
    """Say whether no pod was restarted more often; with ``window_s`` those count that were lately."""
    query = {"labelSelector": label_selector} if label_selector else {}
    pods = _listed("/api/v1/namespaces/{}/pods", namespace, **query)
    return judge_restarts(
        [pod for pod in pods if not is_finished(pod)],
        restarts_max=restarts_max, window_s=window_s, now_s=time.time(),
    )  # fmt: skip


def no_warnings(
    window_s: float = 300.0,
    reasons: Sequence[str] = (),
    besides: Sequence[str] = (),
    count_max: int = 0,
    namespace: str = "",
) -> JsonObject:
    """Say whether no more events than so many were warnings: of these ``reasons``, or of any ``besides``."""
    events = _listed("/api/v1/namespaces/{}/events", namespace, fieldSelector="type=Warning")
    return judge_warnings(
        events, reasons=reasons, besides=besides, count_max=count_max, since_s=time.time() - window_s
    )


def budgets_allow(allowed_min: int = 1, budget: str = "", namespace: str = "") -> JsonObject:
    """Say whether each disruption budget, or the named one, would let so many pods go now."""
    rows = _listed("/apis/policy/v1/namespaces/{}/poddisruptionbudgets", namespace)
    wanted = [row for row in rows if budget in ("", row["metadata"]["name"])]
    return judge_budgets(wanted, allowed_min=allowed_min)


def gpus_allocatable(
    per_node_min: int | None = None,
    nodes: Sequence[str] = (),
    label_selector: str = "",
    resource: str = "nvidia.com/gpu",
    within_s: float = 0.0,
) -> JsonObject:
    """Say whether each node can give out so many GPUs, without a number all that it has; wait ``within_s``.

    Of ``nodes``, else of those with ``label_selector``, else of all that have the resource.
    """
    _, client = _aimed()
    query = {"labelSelector": label_selector} if label_selector else {}
    deadline = time.monotonic() + within_s
    while True:
        rows = client.listed("/api/v1/nodes", **query)
        named = [row for row in rows if not nodes or row["metadata"]["name"] in nodes]
        if missing := sorted({*nodes} - {row["metadata"]["name"] for row in named}):
            raise TargetError(f"node {', '.join(missing)}: there is none")
        seen = judge_gpus(named, resource=resource, per_node_min=per_node_min)
        if seen["outcome"] == Outcome.PASS.value or time.monotonic() >= deadline:
            return seen
        time.sleep(_LOOK_S)


def replicas_between(
    deployment: str, at_least: int, at_most: int, namespace: str = "", within_s: float = 0.0
) -> JsonObject:
    """Say whether so many pods of a deployment are ready, once it has been scaled up or down; wait for it."""
    aim, client = _aimed()
    space = _one(aim, namespace)
    found = read_or_none(client, path_of(DEPLOYMENT, space, deployment))
    if found is None:
        raise TargetError(f"deployment {space}/{deployment}: there is none")
    workload = {"kind": DEPLOYMENT, "namespace": space, "selector": found["spec"]["selector"]}
    view, began = PodView(client, [space]), time.monotonic()

    def ready() -> int:
        return sum(is_ready(pod) for pod in pods_of(workload, view.pods))

    is_met = view.follow(lambda: at_least <= ready() <= at_most, within_s=within_s)
    took_s = round(time.monotonic() - began, 3)
    said = f"deployment {space}/{deployment}: {ready()} ready after {took_s:g} s"
    said += _scaler(client, space, deployment)
    return finding(Outcome.PASS if is_met else Outcome.FAIL, said, ready=ready(), waited_s=took_s)


def _scaler(client: KubeClient, space: str, deployment: str) -> str:
    """Say what the autoscaler of a deployment makes of it."""
    rows = client.listed(f"/apis/autoscaling/v2/namespaces/{space}/horizontalpodautoscalers")
    own = [row for row in rows if row["spec"]["scaleTargetRef"]["name"] == deployment]
    said = []
    for row in own:
        status = row.get("status") or {}
        why = [str(c.get("reason")) for c in status.get("conditions") or [] if _is_trouble(c)]
        wanted = f"; its autoscaler wants {status.get('desiredReplicas')} of {row['spec']['maxReplicas']}"
        said.append(wanted + (f" ({', '.join(why)})" if why else ""))
    return "".join(said) or "; it has no autoscaler"


def _is_trouble(condition: JsonObject) -> bool:
    is_true = condition.get("status") == "True"
    return is_true == (condition.get("type") == "ScalingLimited")


def _one(aim: Aim, namespace: str) -> str:
    names = aim.namespaces(namespace)
    if len(names) > 1:
        raise ConfigError(f"namespace: the target has {', '.join(names)}; state one")
    return names[0]


def job_progresses(
    name: str,
    kind: str = "Job",
    namespace: str = "",
    within_s: float = 60.0,
    step_pattern: str = "",
    container: str = "",
) -> JsonObject:
    """Say whether a training job runs whole and gets on; ``kind`` is Job, JobSet or PyTorchJob.

    By its status alone; with ``step_pattern``, as ``step (?P<step>[0-9]+)``, by the steps in its pods' logs
    too: a greater one has to come ``within_s``.
    """
    if kind not in JOB_PATHS:
        raise ConfigError(f"kind: wanted {', '.join(JOB_PATHS)}, got {kind!r}")
    pattern = re.compile(step_pattern) if step_pattern else None
    if pattern is not None and "step" not in pattern.groupindex:
        raise ConfigError(f"step_pattern: wanted a group (?P<step>…), got {step_pattern!r}")
    aim, client = _aimed()
    space, deadline = _one(aim, namespace), time.monotonic() + within_s
    first = _last_step(client, space, kind, name, container, pattern)
    while True:
        found = read_or_none(client, JOB_PATHS[kind].format(space, name))
        if found is None:
            raise TargetError(f"{kind} {space}/{name}: there is none")
        last = _last_step(client, space, kind, name, container, pattern)
        first = last if first is None else first
        seen = judge_job(
            kind, name, job_state(kind, found), first_step=first, last_step=last,
            is_asked_steps=pattern is not None,
        )  # fmt: skip
        if seen["outcome"] == Outcome.PASS.value or time.monotonic() >= deadline:
            return seen
        time.sleep(_LOOK_S)


def _last_step(
    client: KubeClient, space: str, kind: str, name: str, container: str, pattern: re.Pattern[str] | None
) -> int | None:
    """Return the greatest step at the end of any of its pods' logs; None: none says one."""
    if pattern is None:
        return None
    query: JsonObject = {"labelSelector": f"{JOB_LABELS[kind]}={name}"}
    steps = []
    for pod in client.listed(f"/api/v1/namespaces/{space}/pods", **query):
        path = f"/api/v1/namespaces/{space}/pods/{pod['metadata']['name']}/log"
        asked: JsonObject = {"tailLines": _LOG_LINES} | ({"container": container} if container else {})
        if (pod.get("status") or {}).get("phase") not in (None, "Pending"):
            steps += [int(found["step"]) for found in pattern.finditer(client.text(path, **asked))]
    return max(steps, default=None)

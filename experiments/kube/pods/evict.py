"""Pods are evicted by the API, which asks their disruption budgets; a no for now is asked again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.kube.choosing.allowed import read_or_none
from experiments.kube.client import ApiRefused, KubeClient
from experiments.kube.pods.pod import is_leaving, uid_of
from probes.errors import TargetError
from probes.json_types import JsonObject

_BUDGET, _GONE, _CONFLICT = 429, 404, 409
_LATER = (_BUDGET, _CONFLICT, 503, 504)  # the others: it could not note in the budget that a pod goes
_AGAIN_S = 1.0  # where the API does not say how long to wait
_AGAIN_S_MAX = 5.0


@dataclass(slots=True, kw_only=True)
class Evicting:
    """How the evictions went so far."""

    asked: int = 0  # in vain, whoever said no
    refused: dict[str, int] = field(default_factory=dict)  # by pod: how often a budget said no
    why: dict[str, str] = field(default_factory=dict)  # what was said last


def evict(
    client: KubeClient, pods: Sequence[JsonObject], *, grace_s: int | None, within_s: float
) -> Evicting:
    """Evict these very pods; what a disruption budget refuses for now is asked again until the deadline.

    Raises:
        TargetError: a budget did not let one go in time, or could never do so.
    """
    deadline, seen, left = time.monotonic() + within_s, Evicting(), [*pods]
    while left:
        wait_s, still = 0.0, []
        for pod in left:
            again_s = _evict_one(client, pod, grace_s, seen)
            if again_s is not None:
                still.append(pod)
                wait_s = max(wait_s, again_s)
        left = still
        if not left:
            break
        if time.monotonic() + wait_s > deadline:
            said = "; ".join(f"{name}: {seen.why[name]}" for name in map(_name, left))
            raise TargetError(f"not let go within {within_s:g} s, asked {seen.asked} times: {said}")
        time.sleep(wait_s)
    return seen


def _name(pod: JsonObject) -> str:
    return f"{pod['namespace']}/{pod['name']}"


def _evict_one(client: KubeClient, pod: JsonObject, grace_s: int | None, seen: Evicting) -> float | None:
    """Ask once; return after how many seconds to ask again, None: it goes."""
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    options: JsonObject = {"preconditions": {"uid": pod["uid"]}}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod["name"], "namespace": pod["namespace"]},
        "deleteOptions": options,
    }
    try:
        client.ask("POST", path, body=body)
    except ApiRefused as error:
        if error.status == _GONE or (error.status == _CONFLICT and not _is_there(client, pod)):
            return None  # it went by itself, and another one by its name is not ours
        if error.status not in _LATER:
            raise
        name = _name(pod)
        seen.asked += 1
        if error.status == _BUDGET:
            seen.refused[name] = seen.refused.get(name, 0) + 1
        causes = (error.said.get("details") or {}).get("causes") or []
        seen.why[name] = "; ".join(str(c.get("message")) for c in causes) or str(error.said.get("message"))
        return min(max(error.retry_after_s or _AGAIN_S, _AGAIN_S), _AGAIN_S_MAX)
    return None


def _is_there(client: KubeClient, pod: JsonObject) -> bool:
    """Say whether this very pod stays: evictions that contend for one budget get a conflict as well."""
    found = read_or_none(client, f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}")
    return found is not None and uid_of(found) == pod["uid"] and not is_leaving(found)

"""The workloads that pods belong to, and whether each has as many ready as it is to have.

Pods are counted themselves: the status of a Deployment is written by the very controller that may be broken,
and says all is well while that is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from experiments.kube.choosing.allowed import read_or_none
from experiments.kube.client import KubeClient
from experiments.kube.pods.pod import (
    container_ids_of,
    controller_of,
    has_started,
    is_finished,
    is_leaving,
    is_ready,
    uid_of,
    waits_for,
)
from probes.json_types import JsonObject

DEPLOYMENT = "Deployment"
# Where an object of a kind is read, and how many pods it is to have.
_PATHS = {
    DEPLOYMENT: "/apis/apps/v1/namespaces/{}/deployments/{}",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets/{}",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets/{}",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets/{}",
    "Job": "/apis/batch/v1/namespaces/{}/jobs/{}",
}
_MANY = 20  # objects of one kind: more are read by one list, however many others that brings along
Counted = tuple[JsonObject, JsonObject]  # a workload, and what ``count`` returns of it


def path_of(kind: str, namespace: str, name: str) -> str:
    """Return where the API keeps an object of one of the kinds that we know."""
    return _PATHS[kind].format(namespace, name)


class _Owner(NamedTuple):
    kind: str
    namespace: str
    name: str
    uid: str


def find_workloads(client: KubeClient, pods: Iterable[JsonObject]) -> list[JsonObject]:
    """Return each workload that these pods belong to, once."""
    owners = [*dict.fromkeys(owner for pod in pods if (owner := _owner_of(pod)) is not None)]
    read = _read(client, owners)
    sets = {owner: _owner_of(whole) for owner, whole in read.items() if owner.kind == "ReplicaSet"}
    above = {owner: top for owner, top in sets.items() if top is not None and top.kind == DEPLOYMENT}
    read |= _read(client, [*dict.fromkeys(above.values())])
    return [_row(top, read.get(top)) for top in dict.fromkeys(above.get(owner, owner) for owner in owners)]


def _owner_of(found: JsonObject) -> _Owner | None:
    owner = controller_of(found)
    if owner is None:
        return None
    return _Owner(
        str(owner["kind"]), str(found["metadata"]["namespace"]), str(owner["name"]), str(owner["uid"])
    )


def _read(client: KubeClient, owners: Sequence[_Owner]) -> dict[_Owner, JsonObject]:
    """Return the objects of the kinds that we know; where many are of one kind, by a list of these.

    One that is gone while its pods still end, as of a job that was cleared away, is left out: nobody is to
    bring its pods back. So is another one by its name.
    """
    known = [owner for owner in owners if owner.kind in _PATHS]
    listed: dict[str, JsonObject] = {}
    for (kind, namespace), wanted in Counter((owner.kind, owner.namespace) for owner in known).items():
        if wanted > _MANY:
            listed |= {uid_of(row): row for row in client.listed(path_of(kind, namespace, "").rstrip("/"))}
    found = {
        owner: listed.get(owner.uid) or read_or_none(client, path_of(owner.kind, owner.namespace, owner.name))
        for owner in known
    }
    return {owner: row for owner, row in found.items() if row is not None and uid_of(row) == owner.uid}


def _row(owner: _Owner, whole: JsonObject | None) -> JsonObject:
    if whole is None:  # such as a training job: its pods are known by their owner, its size by them
        return owner._asdict() | {"wanted": None, "selector": None}
    return owner._asdict() | {
        "wanted": wanted_of(owner.kind, whole),
        "selector": whole["spec"].get("selector"),
    }


def wanted_of(kind: str, whole: JsonObject) -> int:
    """Return how many pods a workload is to have."""
    spec, status = whole["spec"], whole.get("status") or {}
    if kind == "DaemonSet":
        return int(status.get("desiredNumberScheduled", 0))
    return int(spec.get("parallelism" if kind == "Job" else "replicas") or 0)


def title_of(workload: JsonObject) -> str:
    """Return what a person calls it."""
    return f"{str(workload['kind']).lower()} {workload['namespace']}/{workload['name']}"


def pods_of(workload: JsonObject, pods: Iterable[JsonObject]) -> list[JsonObject]:
    """Return those of the pods that belong to a workload, finished ones apart."""
    return [pod for pod in pods if belongs(workload, pod) and not is_finished(pod)]


def belongs(workload: JsonObject, pod: JsonObject) -> bool:
    """Say whether a pod is one of a workload's."""
    if pod["metadata"]["namespace"] != workload["namespace"]:
        return False
    if workload["kind"] == DEPLOYMENT:  # its pods have a ReplicaSet, another one after each roll-out
        owner = controller_of(pod)
        return (owner or {}).get("kind") == "ReplicaSet" and matches(
            workload["selector"], pod["metadata"].get("labels") or {}
        )
    return bool((controller_of(pod) or {}).get("uid") == workload["uid"])


def matches(selector: JsonObject, labels: JsonObject) -> bool:
    """Say whether labels are those that a selector of Kubernetes asks for."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(rule, labels) for rule in selector.get("matchExpressions") or [])


def _holds(rule: JsonObject, labels: JsonObject) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values") or []
    holds = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return holds[str(rule["operator"])]


def count(workload: JsonObject, pods: Sequence[JsonObject], *, without: Collection[str] = ()) -> JsonObject:
    """Return how many of its pods are ready, who they are, and what keeps another from it.

    ``without`` are pods or containers that were hit: what is to come back is another one in each one's place.
    """
    own, hit = pods_of(workload, pods), set(without)
    whole = [pod for pod in own if is_ready(pod) and not hit & {uid_of(pod), *container_ids_of(pod)}]
    ready = sorted(map(uid_of, whole))
    containers = sorted(each for pod in whole for each in container_ids_of(pod))
    waiting = sorted({waits_for(pod) for pod in own if not is_leaving(pod)} - {""})
    wanted = len(own) if workload["wanted"] is None else int(workload["wanted"])
    staying = [pod for pod in own if not is_leaving(pod)]
    return {
        "ready": len(ready),
        "wanted": wanted,
        "uids": ready,
        "containers": containers,
        "waits_for": "; ".join(waiting),
        "made": sorted(uid_of(pod) for pod in staying),
        "started": sorted(uid_of(pod) for pod in staying if has_started(pod)),
    }


def see_whole(
    workloads: Sequence[JsonObject], pods: Sequence[JsonObject], *, without: Collection[str] = ()
) -> tuple[bool, str]:
    """Say whether every workload has as many ready as it is to have, and what is seen of them."""
    return say_whole([(workload, count(workload, pods, without=without)) for workload in workloads])


def say_whole(rows: Sequence[Counted]) -> tuple[bool, str]:
    """Say the same of workloads whose pods are counted already."""
    said = [
        f"{title_of(workload)}: {row['ready']} of {row['wanted']} ready"
        + (f", another waits ({row['waits_for'][:200]})" if row["waits_for"] else "")
        for workload, row in rows
    ]
    is_whole = all(row["ready"] >= row["wanted"] and not row["waits_for"] for _, row in rows)
    return is_whole, "; ".join(said) or "no workload is named"

"""The workloads that pods belong to, and whether each has as many ready as it is to have.

Pods are counted themselves: the status of a Deployment is written by the very controller that may be broken,
and says all is well while that is down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from experiments.kube.client import KubeClient
from experiments.kube.pods import (
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


def path_of(kind: str, namespace: str, name: str) -> str:
    """Return where the API keeps an object of one of the kinds that we know."""
    return _PATHS[kind].format(namespace, name)


def find_workloads(client: KubeClient, pods: Iterable[JsonObject]) -> list[JsonObject]:
    """Return each workload that these pods belong to, once."""
    found: dict[str, JsonObject] = {}
    looked: set[str] = set()
    for pod in pods:
        owner = controller_of(pod)
        if owner is None or owner["uid"] in looked:
            continue
        looked.add(owner["uid"])
        namespace = str(pod["metadata"]["namespace"])
        row = _workload(client, str(owner["kind"]), namespace, str(owner["name"]), str(owner["uid"]))
        found.setdefault(row["uid"], row)
    return list(found.values())


def _workload(client: KubeClient, kind: str, namespace: str, name: str, uid: str) -> JsonObject:
    row: JsonObject = {"kind": kind, "namespace": namespace, "name": name, "uid": uid}
    if kind not in _PATHS:  # such as a training job: its pods are known by their owner, its size by them
        return row | {"wanted": None, "selector": None}
    whole = client.ask("GET", path_of(kind, namespace, name))
    above = controller_of(whole)
    if kind == "ReplicaSet" and above is not None and above["kind"] == DEPLOYMENT:
        return _workload(client, DEPLOYMENT, namespace, str(above["name"]), str(above["uid"]))
    return row | {"wanted": wanted_of(kind, whole), "selector": whole["spec"].get("selector")}


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
    return [pod for pod in pods if _belongs(workload, pod) and not is_finished(pod)]


def _belongs(workload: JsonObject, pod: JsonObject) -> bool:
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
    rows = [(workload, count(workload, pods, without=without)) for workload in workloads]
    said = [
        f"{title_of(workload)}: {row['ready']} of {row['wanted']} ready"
        + (f", another waits ({row['waits_for'][:200]})" if row["waits_for"] else "")
        for workload, row in rows
    ]
    is_whole = all(row["ready"] >= row["wanted"] and not row["waits_for"] for _, row in rows)
    return is_whole, "; ".join(said) or "no workload is named"

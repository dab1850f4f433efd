"""Pods, nodes and workloads as the API shows them, for rules that read nothing else."""

from __future__ import annotations

from probes.json_types import JsonObject

WORKLOAD: JsonObject = {
    "kind": "Deployment",
    "namespace": "inference",
    "name": "chat",
    "uid": "d-1",
    "wanted": 3,
    "selector": {"matchLabels": {"app": "chat"}},
}


def pod(
    name: str,
    *,
    namespace: str = "inference",
    owner: str | None = "ReplicaSet",
    is_ready: bool = True,
    is_leaving: bool = False,
    waiting: str = "",
    created: str = "2026-11-21T10:00:00Z",
    volumes: tuple[JsonObject, ...] = (),
) -> JsonObject:
    """Return a pod; its uid is its name."""
    meta: JsonObject = {"name": name, "namespace": namespace, "uid": name, "labels": {"app": "chat"}}
    meta["creationTimestamp"] = created
    if owner:
        meta["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "o-1", "controller": True}]
    if is_leaving:
        meta["deletionTimestamp"] = "2026-11-21T10:01:00Z"
    state: JsonObject = {"waiting": {"reason": waiting, "message": "why"}} if waiting else {"running": {}}
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}],
        "containerStatuses": [{"restartCount": 0, "state": state}],
    }
    spec = {"nodeName": "node-1", "volumes": [*volumes]}
    return {"metadata": meta, "spec": spec, "status": status}

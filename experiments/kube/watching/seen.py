"""What the pods of a target, and the nodes of its cluster, look like at one moment."""

from __future__ import annotations

from experiments.kube.client import FORBIDDEN, ApiRefused, KubeClient, connect
from experiments.kube.cluster import Cluster
from experiments.kube.pods.pod import (
    condition_of,
    controller_of,
    is_finished,
    is_leaving,
    is_ready,
    name_of,
    restarts_of,
    uid_of,
)
from probes.errors import TargetError
from probes.json_types import JsonObject

KUBE_SEEN = "kube.seen"
BEFORE, AFTER = "before", "after"


def see_cluster(cluster: Cluster) -> JsonObject:
    """Return a row for each pod and node, or why they could not be seen."""
    try:
        client = connect(cluster)
        spaces = [f"/api/v1/namespaces/{name}/pods" for name in cluster.namespaces]
        pods = [row for path in spaces for row in client.listed_at(path, _pod)[0] if row]
        nodes = _nodes(client)
    except TargetError as error:
        return {"pods": None, "nodes": None, "observed": str(error)}
    return {"pods": pods, "nodes": nodes, "observed": f"{len(pods)} pods, {len(nodes)} nodes"}


def _nodes(client: KubeClient) -> list[JsonObject]:
    """Return the nodes; none where we may only look at pods: who may not look at a node cannot change it."""
    try:
        return client.listed_at("/api/v1/nodes", _node)[0]
    except ApiRefused as error:
        if error.status != FORBIDDEN:
            raise
        return []


def _pod(pod: JsonObject) -> JsonObject:
    """Return what is kept of a pod; nothing of one that ran to its end."""
    if is_finished(pod):
        return {}
    return {
        "name": name_of(pod),
        "uid": uid_of(pod),
        "owner": (controller_of(pod) or {}).get("uid"),
        "restarts": restarts_of(pod),
        "is_ready": is_ready(pod),
        "is_leaving": is_leaving(pod),
    }


def _node(node: JsonObject) -> JsonObject:
    taints = [f"{t['key']}={t.get('value', '')}:{t['effect']}" for t in node["spec"].get("taints") or []]
    return {
        "name": node["metadata"]["name"],
        "uid": uid_of(node),
        "is_ready": condition_of(node, "Ready").get("status") == "True",
        "is_cordoned": bool(node["spec"].get("unschedulable")),
        "taints": sorted(taints),
    }

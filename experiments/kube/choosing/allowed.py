"""What the owners of namespaces and nodes allow, as labels on them say, and what else a node carries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from experiments.faults.fault import FaultRefused
from experiments.kube.client import ApiRefused, KubeClient
from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE, is_allowed
from experiments.kube.pods.pod import is_finished, is_mirror, is_of_daemon, name_of
from probes.json_types import JsonObject

SYSTEM = "kube-system"
_NOT_FOUND = 404


def namespace_path(name: str) -> str:
    """Return where the API keeps a namespace."""
    return f"/api/v1/namespaces/{name}"


def node_path(name: str) -> str:
    """Return where the API keeps a node."""
    return f"/api/v1/nodes/{name}"


def read_or_none(client: KubeClient, path: str) -> JsonObject | None:
    """Return what is there; None: nothing is."""
    try:
        return client.ask("GET", path)
    except ApiRefused as error:
        if error.status != _NOT_FOUND:
            raise
        return None


def why_not(kind: str, name: str, found: JsonObject | None) -> str:
    """Say why a namespace or node may not be hit; empty: it may be."""
    if found is None:
        return f"{kind} {name}: there is none"
    if is_allowed(found["metadata"].get("labels")):
        return ""
    mark = f"kubectl label {kind} {name} {ALLOWED_LABEL}={ALLOWED_VALUE}"
    return f"{kind} {name}: is not labelled as one that game days may hit; its owner does that: {mark}"


def check_namespaces(client: KubeClient, names: Iterable[str]) -> None:
    """See that each namespace may be hit.

    Raises:
        FaultRefused: its owner has not allowed it.
    """
    for name in names:
        if why := why_not("namespace", name, read_or_none(client, namespace_path(name))):
            raise FaultRefused(why)


def check_node(
    client: KubeClient, name: str, namespaces: Sequence[str]
) -> tuple[JsonObject, list[JsonObject]]:
    """See that a node may be hit, and return it with its pods.

    Raises:
        FaultRefused: its owner has not allowed it, or somebody else's pods are on it.
    """
    node = read_or_none(client, node_path(name))
    why = why_not("node", name, node)
    if why or node is None:
        raise FaultRefused(why)
    pods = pods_on(client, name)
    if strangers := strangers_of(pods, namespaces):
        shown = ", ".join(sorted(name_of(pod) for pod in strangers)[:5])
        raise FaultRefused(
            f"node {name}: carries {len(strangers)} pods of namespaces that are not the target's: {shown}"
        )
    return node, pods


def pods_on(client: KubeClient, node: str) -> list[JsonObject]:
    """Return the pods of a node, finished ones apart."""
    # Without pages: they are few, and for a page of them some API servers look through all pods there are.
    rows = client.listed("/api/v1/pods", fieldSelector=f"spec.nodeName={node}", limit=0)
    return [pod for pod in rows if not is_finished(pod)]


def strangers_of(pods: Iterable[JsonObject], namespaces: Sequence[str]) -> list[JsonObject]:
    """Return the pods that nobody has given us, but those that every node of the cluster has."""
    return [
        pod
        for pod in pods
        if (space := pod["metadata"]["namespace"]) not in namespaces
        and not (space == SYSTEM and (is_of_daemon(pod) or is_mirror(pod)))
    ]

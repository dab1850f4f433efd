"""The taint that keeps work off a node of Kubernetes that failed: set, read and taken off, by us alone.

The taint itself says which run set it, an annotation beside it why. A node is changed only as it was read: if
somebody else changed it meanwhile, it is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from burnin.fleet.acting import Node
from burnin.fleet.launchers.kubernetes import label_value
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import MERGE, ApiRefused, KubeClient

# From a node to its taints and the reason beside them; None: no reason.
Changing = Callable[[JsonObject], tuple[list[JsonObject], str | None]]
TAINT = ANNOTATION = "overproof.dev/burnin"
EFFECT = "NoSchedule"  # what runs there goes on: whoever owns it decides about that
TYPE_LABEL = "node.kubernetes.io/instance-type"
_CONFLICT = 409
_TRIES = 5


def read_cluster_nodes(client: KubeClient) -> dict[str, Node]:
    """Return every node; its partitions are the whole cluster, and the nodes of its type.

    Raises:
        TargetError: the cluster does not answer, or refuses.
    """
    rows = client.listed("/api/v1/nodes")
    names = {str(row["metadata"]["name"]): _partitions(row) for row in rows}
    every = [partition for partitions in names.values() for partition in partitions]
    return {
        name: Node(
            partitions={partition: every.count(partition) for partition in names[name]},
            is_drained=our_taint(row) is not None,
            reason=_reason(row) if our_taint(row) is not None else "",
        )
        for name, row in zip(names, rows, strict=True)
    }


def _partitions(row: JsonObject) -> tuple[str, ...]:
    kind = (row["metadata"].get("labels") or {}).get(TYPE_LABEL)
    return ("cluster", *((f"type {kind}",) if kind else ()))


def our_taint(row: JsonObject) -> JsonObject | None:
    """Return the taint of a node that is ours; None: it has none."""
    return next((taint for taint in _taints(row) if taint["key"] == TAINT), None)


def _taints(row: JsonObject) -> Sequence[JsonObject]:
    return row["spec"].get("taints") or ()


def _reason(row: JsonObject) -> str:
    return str((row["metadata"].get("annotations") or {}).get(ANNOTATION, ""))


def set_taint(client: KubeClient, name: str, *, run: str, reason: str) -> None:
    """Taint a node, with the reason beside it.

    Raises:
        TargetError: the cluster does not let us, or somebody has tainted it so meanwhile.
    """
    taint = {"key": TAINT, "value": label_value(run), "effect": EFFECT}

    def tainted(row: JsonObject) -> tuple[list[JsonObject], str | None]:
        if our_taint(row) is not None:
            raise TargetError(f"{name}: has the taint {TAINT} already")
        return [*_taints(row), taint], reason

    _change(client, name, tainted)


def remove_taint(client: KubeClient, name: str, *, reason: str) -> None:
    """Take our taint off a node that still shows our reason.

    Raises:
        TargetError: the cluster does not let us, or the taint is not ours any more.
    """

    def untainted(row: JsonObject) -> tuple[list[JsonObject], str | None]:
        if not _reason(row).startswith(reason):
            raise TargetError(
                f"{name}: the taint is somebody else's now: {_reason(row) or 'no reason given'}"
            )
        return [taint for taint in _taints(row) if taint["key"] != TAINT], None

    _change(client, name, untainted)


def _change(client: KubeClient, name: str, change: Changing) -> None:
    path = f"/api/v1/nodes/{name}"
    for tries_left in reversed(range(_TRIES)):
        row = client.ask("GET", path)
        taints, reason = change(row)
        as_read = {"resourceVersion": row["metadata"]["resourceVersion"], "annotations": {ANNOTATION: reason}}
        try:
            client.ask(
                "PATCH", path, body={"metadata": as_read, "spec": {"taints": taints}}, content_type=MERGE
            )
        except ApiRefused as error:
            if error.status != _CONFLICT or not tries_left:
                raise
        else:
            return

"""Which pods and nodes an action hits: named, or so many of those that match, by seed or by age.

Not chaostoolkit-kubernetes' ``terminate_pods`` and ``drain_nodes``: with a label that matches nothing they do
nothing and succeed, without one they take the namespace ``default`` or every node, and the nodes of ``count``
are drawn with repetition. Here a selector is needed, and an empty or too small choice is refused.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from experiments.faults.fault import FaultRefused
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import check_namespaces
from experiments.kube.client import KubeClient
from experiments.kube.pods.pod import (
    condition_of,
    controller_of,
    is_mirror,
    is_ready,
    name_of,
    node_of,
    without_bulk,
)
from probes.json_types import JsonObject

RANDOM, OLDEST = "random", "oldest"


def choose_pods(
    client: KubeClient,
    aim: Aim,
    *,
    namespace: str,
    label_selector: str,
    pod: str,
    node: str,
    count: int | None,
    share: float | None,
    order: str,
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Return the pods to hit, and the other ready ones that match.

    Raises:
        FaultRefused: nothing says which, nothing matches, too few do, or nobody would replace one.
    """
    if not (label_selector or pod):
        raise FaultRefused("which pods? state label_selector, or pod")
    spaces = aim.namespaces(namespace)
    check_namespaces(client, spaces)
    query = {"labelSelector": label_selector} if label_selector else {}
    rows = [row for space in spaces for row in client.listed(f"/api/v1/namespaces/{space}/pods", **query)]
    matching = [row for row in rows if is_ready(row) and not is_mirror(row)]
    asked = [row for row in matching if _is_asked(row, pod, node)]
    wanted = how_many(len(asked), count=count, share=share)
    if not asked or wanted > len(asked):
        where = f"{label_selector or pod}{f' on {node}' if node else ''} in {', '.join(spaces)}"
        raise FaultRefused(f"{where}: {len(asked)} ready pods match, {max(wanted, 1)} are wanted")
    chosen = draw(asked, wanted, order=order, seed=aim.seed)
    if bare := [name_of(row) for row in chosen if controller_of(row) is None]:
        raise FaultRefused(f"{', '.join(bare)}: has no controller, so nobody would replace it, nor could we")
    return chosen, [row for row in matching if row not in chosen]


def _is_asked(row: JsonObject, pod: str, node: str) -> bool:
    return pod in ("", row["metadata"]["name"]) and node in ("", node_of(row))


def how_many(matching: int, *, count: int | None, share: float | None) -> int:
    """Return how many of those that match are meant; a share is rounded down, but hits one at least.

    Raises:
        FaultRefused: count and share cannot both be, and both have bounds.
    """
    if count is not None and share is not None:
        raise FaultRefused("count and share: state one of them")
    if share is not None:
        if not 0 < share <= 1:
            raise FaultRefused(f"share: wanted more than 0, at most 1; got {share!r}")
        return max(1, math.floor(share * matching))
    if count is not None and count < 1:
        raise FaultRefused(f"count: wanted 1 or more, got {count!r}")
    return 1 if count is None else count


def draw(rows: Sequence[JsonObject], wanted: int, *, order: str, seed: int) -> list[JsonObject]:
    """Return so many of the rows, each at most once."""
    if order == OLDEST:
        return sorted(rows, key=lambda row: (row["metadata"]["creationTimestamp"], _name(row)))[:wanted]
    if order != RANDOM:
        raise FaultRefused(f"order: wanted {RANDOM!r} or {OLDEST!r}, got {order!r}")
    return sorted(random.Random(seed).sample(sorted(rows, key=_name), wanted), key=_name)


def _name(row: JsonObject) -> str:
    return f"{row['metadata'].get('namespace', '')}/{row['metadata']['name']}"


def _is_well(nodes: Sequence[JsonObject], name: str) -> bool:
    (node,) = [row for row in nodes if row["metadata"]["name"] == name]
    return bool(condition_of(node, "Ready").get("status") == "True")


def choose_nodes(
    client: KubeClient,
    aim: Aim,
    *,
    node: str,
    label_selector: str,
    count: int | None,
    is_every: bool = False,
    pod_label_selector: str = "",
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Return the nodes to hit, ``count`` or every one of those that match, and all others of the cluster.

    With ``pod_label_selector`` only those that carry such a pod of the target, each once however many it
    carries: chaostoolkit-kubernetes counts a node once for each of them.

    Raises:
        FaultRefused: nothing says which, there is none, or too few.
    """
    if not (node or label_selector or pod_label_selector):
        raise FaultRefused("which nodes? state node, label_selector, or pod_label_selector")
    every = matching = client.listed_at("/api/v1/nodes", without_bulk)[0]
    if label_selector:
        matching = client.listed_at("/api/v1/nodes", without_bulk, labelSelector=label_selector)[0]
    asked = [row for row in matching if node in ("", row["metadata"]["name"])]
    if pod_label_selector:
        carrying = _carrying(client, aim, pod_label_selector)
        asked = [row for row in asked if row["metadata"]["name"] in carrying]
    wanted = max(1, len(asked)) if is_every else 1 if count is None else count
    if not asked or not 0 < wanted <= len(asked):
        said = node or " with pods ".join(filter(None, (label_selector, pod_label_selector)))
        raise FaultRefused(f"{said}: {len(asked)} nodes match, {wanted} are wanted")
    chosen = draw(asked, wanted, order=RANDOM, seed=aim.seed)
    names = {row["metadata"]["name"] for row in chosen}
    if ill := [name for name in sorted(names) if not _is_well(chosen, name)]:
        raise FaultRefused(f"node {', '.join(ill)}: is not ready already, so nothing would show what breaks")
    return chosen, [row for row in every if row["metadata"]["name"] not in names]


def _carrying(client: KubeClient, aim: Aim, label_selector: str) -> set[str]:
    spaces = aim.namespaces("")
    check_namespaces(client, spaces)
    paths = [f"/api/v1/namespaces/{space}/pods" for space in spaces]
    rows = [row for path in paths for row in client.listed(path, labelSelector=label_selector)]
    return {node_of(row) for row in rows if is_ready(row)}

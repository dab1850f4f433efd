"""What an action would hit on the cluster, and the state before; nothing is touched."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from experiments.faults.fault import FaultRefused
from experiments.kube.choosing.aim import Aim
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.pods.drainable import why_not_drained
from experiments.kube.pods.pod import is_mirror, is_of_daemon, name_of, node_of, uid_of
from experiments.kube.pods.workloads import find_workloads, matches, title_of
from experiments.kube.undoing.steps import UndoStep
from probes.json_types import JsonObject

_NODE = "node "  # begins what is said of a victim that is one


def base_of(
    fault: str,
    aim: Aim,
    identity: Identity,
    *,
    victims: Sequence[JsonObject],
    others: Sequence[str],
    workloads: Sequence[JsonObject],
    hit: Sequence[JsonObject],
    at_once: int | None = None,
    steps: Sequence[UndoStep] = (),
    carries: Sequence[str] = (),
) -> JsonObject:
    """Return what every fault of a cluster keeps; ``hit`` are the pods that go with it."""
    return {
        "kube_fault": fault,
        "id": f"{fault}-{secrets.token_hex(4)}",
        "target": aim.name,
        "run": aim.run,
        "cluster": aim.cluster.to_json(),
        "identity": identity.to_json(),
        "victims": [*victims],
        "others": [{"name": name} for name in others],
        "at_once": len(victims) if at_once is None else at_once,
        "workloads": [*workloads],
        "hit_pods": [_of_pod(pod) for pod in hit],
        "undo_steps": [step.to_json() for step in steps],
        "carries": [*carries, *_undone_by(aim, steps)],
    }


def _undone_by(aim: Aim, steps: Sequence[UndoStep]) -> list[str]:
    """Say who undoes when we are gone."""
    if not steps:
        return []
    if aim.cluster.dead_man is None:
        return ["when we are killed: by `overproof gameday undo` alone, no dead_man is asked for"]
    return [f"when we are killed: by the dead-man in namespace {aim.cluster.dead_man.namespace}"]


def capture_pods(
    fault: str,
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    chosen: Sequence[JsonObject],
    others: Sequence[JsonObject],
    arguments: JsonObject,
) -> JsonObject:
    """Return what killing or evicting these pods needs."""
    workloads = find_workloads(client, chosen)
    victims = [
        {"name": name_of(pod), "identity": uid_of(pod), "what": f"{uid_of(pod)} on {node_of(pod)}"}
        for pod in chosen
    ]
    captured = base_of(
        fault,
        aim,
        identity,
        victims=victims,
        others=[name_of(pod) for pod in others],
        workloads=workloads,
        hit=chosen,
        carries=[f"of {title_of(row)}, {row['wanted']} wanted" for row in workloads]
        + (headroom(client, chosen) if fault == "pod.evict" else []),  # a kill asks no budget
    )
    return captured | {"arguments": arguments}


def capture_drain(
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    nodes: Sequence[tuple[JsonObject, list[JsonObject]]],
    others: Sequence[JsonObject],
    arguments: JsonObject,
    *,
    steps: Sequence[UndoStep],
) -> JsonObject:
    """Return what draining nodes, each with its pods, needs.

    They are one fault: all are cordoned before the first pod goes, or pods would move from one to the next.

    Raises:
        FaultRefused: a pod on one may not be evicted.
    """
    every = [pod for _, pods in nodes for pod in pods]
    moving = [pod for pod in every if not is_of_daemon(pod) and not is_mirror(pod)]
    may_lose_data = bool(arguments["delete_emptydir_data"])
    reasons = [
        f"node {node_of(pod)}: {why}"
        for pod in moving
        if (why := why_not_drained(pod, may_lose_data=may_lose_data))
    ]
    if reasons:
        raise FaultRefused("; ".join(reasons))
    carries = [f"evicted: {name_of(pod)}" for pod in moving]
    carries += [f"stays: {name_of(pod)}" for pod in every if pod not in moving]
    carries += [
        f"{node['metadata']['name']}: cordoned by somebody else already: it will be left so"
        for node, _ in nodes
        if node["spec"].get("unschedulable")
    ]
    captured = base_of(
        "node.drain",
        aim,
        identity,
        victims=[node_victim(node) for node, _ in nodes],
        others=[row["metadata"]["name"] for row in others],
        workloads=find_workloads(client, moving),
        hit=moving,
        steps=steps,
        carries=carries + headroom(client, moving),
    )
    return captured | {"arguments": arguments}


def node_victim(node: JsonObject) -> JsonObject:
    """Return a node as a plan names it."""
    name = str(node["metadata"]["name"])
    return {"name": name, "identity": uid_of(node), "what": f"{_NODE}{uid_of(node)}"}


def is_node(victim: JsonObject) -> bool:
    """Say whether a victim is a node, as it says itself."""
    return str(victim["what"]).startswith(_NODE)


def _of_pod(pod: JsonObject) -> JsonObject:
    meta = pod["metadata"]
    return {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"], "node": node_of(pod)}


def headroom(client: KubeClient, pods: Sequence[JsonObject]) -> list[str]:
    """Say of each disruption budget over these pods how many it lets go now."""
    said = []
    for space in sorted({str(pod["metadata"]["namespace"]) for pod in pods}):
        for budget in client.listed(f"/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"):
            own = [pod for pod in pods if _is_under(budget, pod, space)]
            if own:
                allowed = int((budget.get("status") or {}).get("disruptionsAllowed", 0))
                name = f"{space}/{budget['metadata']['name']}"
                said.append(
                    f"budget {name} lets {allowed} go now, {len(own)} would: an eviction waits for it"
                )
    return said


def _is_under(budget: JsonObject, pod: JsonObject, space: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    is_here = pod["metadata"]["namespace"] == space
    return is_here and matches(budget["spec"].get("selector") or {}, labels)

"""A node under pressure: a pod on it takes processor, memory and disk, as a bad neighbour does.

It asks for the processor that it takes, so that it weighs as much as others that do; of memory and disk it
asks for next to nothing: a kubelet that runs short ends it before any that keeps to what it asked for.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import check_node, read_or_none
from experiments.kube.choosing.capture import base_of, node_victim
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.containers.faults import check_hand
from experiments.kube.containers.hand_pod import Hand, pod_on, remove, start
from experiments.kube.faults import A_CLUSTER, A_NODE, client_of, recheck_node, subject_of
from experiments.kube.nodes import press
from experiments.kube.pods.pod import is_of_daemon, name_of
from experiments.kube.pods.workloads import find_workloads
from probes.archive import source_of
from probes.json_types import JsonObject

_FOLDER, _GONE_S, _LOOK_S = "/filling", 40.0, 0.5
_MIB = 1 << 20
# What one part of pressure may take of what the node has to give, so that its own services live on.
_SHARE_MAX = 0.9


def capture_pressure(
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    node: JsonObject,
    others: list[str],
    *,
    wanted: JsonObject,
    for_s: float,
    hand: Hand,
) -> JsonObject:
    """Return what pressing on a node needs; ``wanted`` are its cores, memory_mib and disk_mib.

    Raises:
        FaultRefused: nothing is asked for, or more than the node can give.
    """
    name = str(node["metadata"]["name"])
    if for_s <= 0 or not any(wanted.values()) or any(value < 0 for value in wanted.values()):
        raise FaultRefused(
            f"wanted cores, memory_mib or disk_mib, and for_s above 0; got {wanted}, {for_s!r}"
        )
    has = node["status"]["allocatable"]
    room = {
        "cores": _number(has["cpu"]),
        "memory_mib": _number(has["memory"]) / _MIB,
        "disk_mib": _number(has.get("ephemeral-storage", "0")) / _MIB,
    }
    if wide := [key for key, value in wanted.items() if value > _SHARE_MAX * room[key]]:
        said = ", ".join(f"{wanted[key]} {key} of {room[key]:.0f}" for key in wide)
        raise FaultRefused(f"node {name}: {said}: at most {_SHARE_MAX:.0%} may be taken")
    check_hand(client, hand)
    _, pods = check_node(client, name, aim.cluster.namespaces)
    captured = base_of(
        "node.pressure", aim, identity, victims=[node_victim(node)], hit=[], others=others, at_once=1,
        workloads=find_workloads(client, [pod for pod in pods if not is_of_daemon(pod)]),
        carries=[f"suffers: {name_of(pod)}" for pod in pods]
        + [f"when we are killed: it ends by itself after {for_s:g} s"],
    )  # fmt: skip
    return captured | {"arguments": wanted | {"for_s": for_s}, "hand": hand.to_json()}


def _number(quantity: str) -> float:
    library: Any = import_module("kubernetes.utils.quantity")  # slow to import, and untyped
    return float(library.parse_quantity(quantity))


def _name(captured: JsonObject) -> str:
    return str(captured["id"]).replace(".", "-")


def pressing_pod(captured: JsonObject) -> JsonObject:
    """Return the pod that presses."""
    at, given = Hand(**captured["hand"]), captured["arguments"]
    (victim,) = captured["victims"]
    words = [str(given[key]) for key in ("cores", "memory_mib", "disk_mib")]
    source = source_of(press.__name__).read_text(encoding="utf-8")
    container = {
        "name": "press",
        "image": at.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [at.python, "-I", "-S", "-c", source, *words, _FOLDER, f"{given['for_s']:g}"],
        "resources": {
            "requests": {"cpu": str(given["cores"] or "1m"), "memory": "16Mi"},
            "limits": {"memory": f"{given['memory_mib'] + 64}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "filling", "mountPath": _FOLDER}],
    }
    more = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532},
        "volumes": [{"name": "filling", "emptyDir": {}}],
    }
    return pod_on(
        at, _name(captured), str(victim["name"]), container, for_s=given["for_s"], label="press", more=more
    )


def press_on(captured: JsonObject) -> None:
    """Start it, and wait until it has taken all."""
    word = start(client_of(captured), Hand(**captured["hand"]), pressing_pod(captured))
    captured["taken"], captured["t_hit_ns"] = word.said, word.t_hit_ns


def verify_pressed(captured: JsonObject) -> Verification:
    """See that it has taken what was asked for, and still runs."""
    at, taken, given = Hand(**captured["hand"]), captured["taken"], captured["arguments"]
    pod = read_or_none(client_of(captured), f"{at.pods}/{_name(captured)}")
    runs = pod is not None and (pod.get("status") or {}).get("phase") == "Running"
    parts = ("cores", "memory_mib", "disk_mib")
    is_all = all(taken[key] >= given[key] for key in parts)
    said = ", ".join(f"{taken[key]} {key}" for key in parts)
    (victim,) = captured["victims"]
    how = "" if runs else "; its pod does not run any more"
    return Verification(is_verified=runs and is_all, observed=f"node {victim['name']}: {said} taken{how}")


def undo_pressure(captured: JsonObject) -> Undoing:
    """End it, and see it gone."""
    client, at = client_of(captured), Hand(**captured["hand"])
    was_there = remove(client, at, _name(captured))
    deadline = time.monotonic() + _GONE_S
    while read_or_none(client, f"{at.pods}/{_name(captured)}") is not None:
        if time.monotonic() > deadline:
            return Undoing(
                is_restored=False, did=f"pod {_name(captured)}: is still there", has_acted=was_there
            )
        time.sleep(_LOOK_S)
    (victim,) = captured["victims"]
    did = f"node {victim['name']}: " + ("let go" if was_there else "nothing presses on it")
    return Undoing(is_restored=True, did=did, has_acted=was_there)


NODE_PRESSURE = Fault(
    name="node.pressure",
    fidelity="K",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_node,
    inject=press_on,
    verify=verify_pressed,
    undo=undo_pressure,
    risk="medium",
    needs=(A_CLUSTER, A_NODE, "a namespace for the pod that presses"),
    covers=("host-exhausted",),
    is_undone_anywhere=True,
)

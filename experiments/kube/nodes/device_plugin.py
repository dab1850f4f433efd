"""A node loses its device plugin: its GPUs cannot be given out any more, and what runs on them runs on.

By the node's label that the plugin's DaemonSet chooses its nodes by: another value ends the plugin's pod on
that node alone, and the former one brings it again. So it is a change of one field, undone as any other, by
the dead-man too.
"""

from __future__ import annotations

import time

from experiments.faults.fault import UNDO, Fault, FaultRefused, Undoing, Verification
from experiments.kube.choosing.aim import Aim
from experiments.kube.choosing.allowed import node_path, pods_on, read_or_none, why_not
from experiments.kube.choosing.capture import base_of, node_victim
from experiments.kube.client import KubeClient
from experiments.kube.cluster import Identity
from experiments.kube.faults import (
    A_CLUSTER,
    A_NODE,
    arm_dead_man,
    client_of,
    make_changes,
    subject_of,
    undo_changes,
)
from experiments.kube.pods.pod import name_of, uid_of
from experiments.kube.undoing.marks import new_mark
from experiments.kube.undoing.steps import make_step
from experiments.kube.watching.observed import allocatable_of
from probes.json_types import JsonObject

GPU = "nvidia.com/gpu"
GPU_OPERATORS_LABEL = "nvidia.com/gpu.deploy.device-plugin"  # which the GPU operator's DaemonSet asks for
LOST_S, BACK_S = 60.0, 90.0  # a kubelet reports what it can give out each 10 s; a plugin has to start first
_LOOK_S = 0.5


def capture_lost_plugin(
    aim: Aim,
    client: KubeClient,
    identity: Identity,
    node: JsonObject,
    others: list[str],
    *,
    label: str,
    value: str,
    resource: str,
) -> JsonObject:
    """Return what taking a node's device plugin needs.

    Raises:
        FaultRefused: its owner has not allowed it, it has none to give, or no DaemonSet asks for the label.
    """
    name = str(node["metadata"]["name"])
    if why := why_not("node", name, node):
        raise FaultRefused(why)
    before = allocatable_of(node, resource)
    if before < 1:
        raise FaultRefused(f"node {name}: gives out no {resource} now, so nothing would show what breaks")
    plugins = _asking_for(client, label, (node["metadata"].get("labels") or {}).get(label))
    if not plugins:
        raise FaultRefused(f"node {name}: no DaemonSet asks for its label {label}; state the plugin's own")
    step = make_step(
        node,
        subject=f"node/{name}",
        path=node_path(name),
        ours=[(("metadata", "labels", label), value)],
        mark=new_mark(aim.run),
    )
    using = [name_of(pod) for pod in pods_on(client, name) if _asks(pod, resource)]
    captured = base_of(
        "device-plugin.lose", aim, identity, victims=[node_victim(node)], workloads=[], hit=[], others=others,
        at_once=1, steps=[step],
        carries=[f"ended there: the pods of daemonset {each}" for each in plugins]
        + [f"runs on: {each}, which has {resource}" for each in using],
    )  # fmt: skip
    return captured | {"arguments": {"resource": resource}, "allocatable": before}


def _asking_for(client: KubeClient, label: str, value: object) -> list[str]:
    """Return the DaemonSets that choose their nodes by a label, where the node has their value."""
    rows = client.listed("/apis/apps/v1/daemonsets")
    return [
        name_of(row)
        for row in rows
        if value is not None
        and (row["spec"]["template"]["spec"].get("nodeSelector") or {}).get(label) == value
    ]


def _asks(pod: JsonObject, resource: str) -> bool:
    return any(
        resource in ((each.get("resources") or {}).get("limits") or {}) for each in pod["spec"]["containers"]
    )


def recheck_plugin(captured: JsonObject) -> None:
    """See that this very node is there and still may be hit."""
    client = client_of(captured)
    for victim in captured["victims"]:
        found = read_or_none(client, node_path(str(victim["name"])))
        if why := why_not("node", str(victim["name"]), found):
            raise FaultRefused(why)
        if found is None or uid_of(found) != victim["identity"]:
            raise FaultRefused(f"node {victim['name']}: is another one by now")
    arm_dead_man(captured)


def _await_allocatable(
    captured: JsonObject, *, at_least: int, below: int, within_s: float
) -> tuple[bool, str]:
    """Wait until the node gives out so many; say whether it does, and how many it gives out."""
    client, resource = client_of(captured), str(captured["arguments"]["resource"])
    (victim,) = captured["victims"]
    deadline = time.monotonic() + within_s
    while True:
        found = read_or_none(client, node_path(str(victim["name"])))
        now = 0 if found is None else allocatable_of(found, resource)
        if at_least <= now < below or time.monotonic() > deadline:
            said = f"node {victim['name']}: gives out {now} {resource}, {captured['allocatable']} before"
            return at_least <= now < below, said
        time.sleep(_LOOK_S)


def verify_lost(captured: JsonObject) -> Verification:
    """See that the node gives out none any more."""
    is_lost, said = _await_allocatable(captured, at_least=0, below=1, within_s=LOST_S)
    return Verification(is_verified=is_lost, observed=said)


def undo_lost(captured: JsonObject) -> Undoing:
    """Put the label back and wait until the node gives out as many as before."""
    done = undo_changes(captured)
    before = int(captured["allocatable"])
    is_back, said = _await_allocatable(captured, at_least=before, below=before + 1, within_s=BACK_S)
    return Undoing(is_restored=is_back, did=f"{done.did}; {said}", has_acted=done.has_acted)


DEVICE_PLUGIN_LOSE = Fault(
    name="device-plugin.lose",
    fidelity="K",
    ends_by=UNDO,
    subject=subject_of,
    recheck=recheck_plugin,
    inject=make_changes,
    verify=verify_lost,
    undo=undo_lost,
    risk="medium",
    needs=(A_CLUSTER, A_NODE, "a device plugin whose DaemonSet chooses its nodes by a label"),
    covers=("gpu-lost",),
    is_undone_anywhere=True,
)

"""Nodes as objects of the API: one that is deleted, and the taint that gives a lost one up."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from experiments.faults.fault import PLATFORM, Fault, Undoing, Verification
from experiments.kube.allowed import node_path, read_or_none
from experiments.kube.client import MERGE, ApiRefused, KubeClient
from experiments.kube.clocks import SLACK_S, clocks_from_json
from experiments.kube.faults import (
    A_CLUSTER,
    A_NODE,
    arm_dead_man,
    changed,
    client_of,
    make_changes,
    subject_of,
    undo_changes,
)
from experiments.kube.marks import new_mark
from experiments.kube.nodes import SSH, await_nodes, lose, put_hosts_back, recheck_loss, undo_loss
from experiments.kube.pods import condition_of, uid_of
from experiments.kube.undo_steps import CONFLICT, UndoStep, make_step
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject

BACK_S = 90.0
COLLECTOR: Final = "the pod garbage collector, and the controller of the pods"
OUT_OF_SERVICE: Final = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}
_TRIES_MAX = 8


def delete_nodes(captured: JsonObject) -> None:
    """Stop each kubelet, which would make its node anew, and delete these very nodes."""
    lose(captured)
    client = client_of(captured)
    for victim in captured["victims"]:
        body = {"preconditions": {"uid": victim["identity"]}}
        client.ask("DELETE", node_path(str(victim["name"])), body=body)


def verify_deleted(captured: JsonObject) -> Verification:
    """See that none of these very nodes is there."""
    client = client_of(captured)
    left = [str(v["name"]) for v in captured["victims"] if _same(client, v) is not None]
    said = f"still there: {', '.join(left)}" if left else f"{subject_of(captured)}: no node any more"
    return Verification(is_verified=not left, observed=said)


def _same(client: KubeClient, victim: JsonObject) -> JsonObject | None:
    found = read_or_none(client, node_path(str(victim["name"])))
    return found if found is not None and uid_of(found) == victim["identity"] else None


def undo_deleted(captured: JsonObject) -> Undoing:
    """Have each kubelet register its node again; give that what it had and what no kubelet knows of.

    Raises:
        TargetError: a host cannot be reached, or its node does not come back as it was.
    """
    done, said, is_mending = put_hosts_back(captured)
    client, names = client_of(captured), [str(victim["name"]) for victim in captured["victims"]]

    def are_there() -> bool:
        return all(read_or_none(client, node_path(name)) is not None for name in names)

    if not wait_until(are_there, timeout_s=BACK_S, interval_s=0.5):
        raise TargetError(
            f"{', '.join(names)}: not registered again {BACK_S:g} s after its kubelet was started"
        )
    given = [
        restore(client, victim, captured["objects"][str(victim["name"])]) for victim in captured["victims"]
    ]
    seen = await_nodes(captured, within_s=BACK_S)
    has_acted = any(each.has_acted for each in done) or any(given)
    did = [*(each.did for each in done), *(text for text in given if text), seen, said]
    return Undoing(is_restored=True, did="; ".join(did), has_acted=has_acted, is_mending=is_mending)


def restore(client: KubeClient, victim: JsonObject, before: JsonObject) -> str:
    """Give a node that was made anew the labels, annotations, taints and cordon that it lacks; say which.

    What it has with another value is left alone: its kubelet, or somebody, says so by now.
    """
    path = node_path(str(victim["name"]))
    for _ in range(_TRIES_MAX):
        node = client.ask("GET", path)
        patch, said = lacking(node, before)
        if uid_of(node) == victim["identity"] or not said:
            return ""
        meta = {"uid": node["metadata"]["uid"], "resourceVersion": node["metadata"]["resourceVersion"]}
        body = patch | {"metadata": (patch.get("metadata") or {}) | meta}
        try:
            client.ask("PATCH", path, body=body, content_type=MERGE)
        except ApiRefused as error:
            if error.status != CONFLICT:
                raise
            continue  # somebody was quicker: look again
        return f"node/{victim['name']}: given back {said}"
    raise TargetError(
        f"node/{victim['name']}: changed by somebody else each of {_TRIES_MAX} times; is tried again"
    )


def lacking(node: JsonObject, before: JsonObject) -> tuple[JsonObject, str]:
    """Return the patch that gives a node what it lacks of what was kept, and what that is in words."""
    meta: JsonObject = {}
    spec: JsonObject = {}
    said: list[str] = []
    for kind in ("labels", "annotations"):
        now = node["metadata"].get(kind) or {}
        if missing := {key: value for key, value in before[kind].items() if key not in now}:
            meta[kind] = missing
            said.append(f"{kind} {', '.join(sorted(missing))}")
    now_taints = node["spec"].get("taints") or []
    known = {(taint["key"], taint["effect"]) for taint in now_taints}
    if gone := [taint for taint in before["taints"] if (taint["key"], taint["effect"]) not in known]:
        spec["taints"] = [*now_taints, *gone]  # a list goes as a whole: the version read makes that safe
        said.append(f"taints {', '.join(taint['key'] for taint in gone)}")
    if before["unschedulable"] and not node["spec"].get("unschedulable"):
        spec["unschedulable"] = True
        said.append("its cordon")
    patch = ({"metadata": meta} if meta else {}) | ({"spec": spec} if spec else {})
    return patch, "; ".join(said)


def out_of_service_step(node: JsonObject, run: str) -> UndoStep:
    """Return what takes off the taint that we are about to put on a node."""
    name = str(node["metadata"]["name"])
    where = ("spec", "taints", {"key": OUT_OF_SERVICE["key"], "effect": OUT_OF_SERVICE["effect"]})
    ours = [(where, OUT_OF_SERVICE)]
    return make_step(node, subject=f"node/{name}", path=node_path(name), ours=ours, mark=new_mark(run))


def recheck_given_up(captured: JsonObject) -> None:
    """See that the nodes may be hit; have timer and dead-man ready."""
    recheck_loss(captured)
    arm_dead_man(captured)


def give_up(captured: JsonObject) -> None:
    """Stop each kubelet, and once the platform has missed the nodes, say that they are out of service.

    The taint on a node that is not missed yet would run its pods twice.

    Raises:
        TargetError: the platform does not miss them.
    """
    lose(captured)
    client, clocks = client_of(captured), clocks_from_json(captured["clocks"])
    names = [str(victim["name"]) for victim in captured["victims"]]

    def are_missed() -> bool:
        nodes = [client.ask("GET", node_path(name)) for name in names]
        return all(condition_of(node, "Ready").get("status") != "True" for node in nodes)

    within_s = clocks.grace_s + clocks.period_s + SLACK_S
    if not wait_until(are_missed, timeout_s=within_s, interval_s=0.5):
        raise TargetError(f"{', '.join(names)}: not missed by the platform within {within_s:g} s")
    make_changes(captured)


def undo_given_up(captured: JsonObject) -> Undoing:
    """Take the taint off, and put the hosts back, which needs no API.

    Raises:
        TargetError: one of both could not be done; the other was.
    """
    try:
        untainted, why = undo_changes(captured), ""
    except TargetError as error:
        untainted, why = None, str(error)
    done = undo_loss(captured)
    if untainted is None:
        raise TargetError(f"{why}; {done.did}")
    has_acted = done.has_acted or untainted.has_acted
    return replace(done, did=f"{untainted.did}; {done.did}", has_acted=has_acted)


DELETE = Fault(
    name="node.delete",
    fidelity="K",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_loss,
    inject=delete_nodes,
    verify=verify_deleted,
    undo=undo_deleted,
    risk="high",
    needs=(A_CLUSTER, A_NODE, SSH, "systemd", "root"),
    covers=("host-down",),
    heals=COLLECTOR,
    is_undone_anywhere=True,
)
GIVEN_UP = Fault(
    name="node.out-of-service",
    fidelity="K",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_given_up,
    inject=give_up,
    verify=changed,
    undo=undo_given_up,
    risk="high",
    needs=(A_CLUSTER, A_NODE, SSH, "systemd", "root"),
    covers=("host-down",),
    heals=COLLECTOR,
    is_undone_anywhere=True,
)

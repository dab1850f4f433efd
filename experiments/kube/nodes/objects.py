"""Nodes as objects of the API: one that is deleted, and the taint that gives a lost one up."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from experiments.faults.fault import PLATFORM, Fault, Undoing, Verification
from experiments.kube.choosing.allowed import node_path, read_or_none
from experiments.kube.client import KubeClient
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
from experiments.kube.nodes.clocks import SLACK_S, clocks_from_json
from experiments.kube.nodes.loss import SSH, await_nodes, lose, put_hosts_back, recheck_loss, undo_loss
from experiments.kube.pods.pod import condition_of, uid_of
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject

BACK_S = 90.0
COLLECTOR: Final = "the pod garbage collector, and the controller of the pods"


def delete_nodes(captured: JsonObject) -> None:
    """Stop each kubelet, which would make its node anew, and delete these very nodes."""
    lose(captured)
    make_changes(captured)


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
    given = undo_changes(captured)
    seen = await_nodes(captured, within_s=BACK_S)
    has_acted = any(each.has_acted for each in done) or given.has_acted
    did = [*(each.did for each in done), given.did, seen, said]
    return Undoing(is_restored=True, did="; ".join(did), has_acted=has_acted, is_mending=is_mending)


def recheck_object(captured: JsonObject) -> None:
    """See that the nodes may be hit; have timers and dead-man ready."""
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
    recheck=recheck_object,
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
    recheck=recheck_object,
    inject=give_up,
    verify=changed,
    undo=undo_given_up,
    risk="high",
    needs=(A_CLUSTER, A_NODE, SSH, "systemd", "root"),
    covers=("host-down",),
    heals=COLLECTOR,
    is_undone_anywhere=True,
)

"""Actions for Chaos Toolkit that lose nodes of the Kubernetes cluster of a game day's target.

An action is named like its fault, ``node_kubelet_stop`` for ``node.kubelet-stop``. Nodes are chosen by
``node`` or ``label_selector``, and ``count``; the target says how to log in there (``nodes``).
``undo_after_s`` is when the timer on the host puts it back without us, counted from the moment at which it
was looked at; rollback and probes are those of ``experiments.kube.actions``.
"""

from __future__ import annotations

from experiments.faults.fault import FaultRefused
from experiments.kube.choosing.aim import aim_now
from experiments.kube.choosing.choice import choose_nodes
from experiments.kube.inject import inject
from experiments.kube.nodes.steps import MakeStep, deletion_step, out_of_service_step
from experiments.kube.nodes.zones import ZONE_LABEL
from probes.json_types import JsonObject

UNDO_AFTER_S = 600.0  # beyond the default clocks of a cluster


def node_kubelet_stop(
    node: str = "",
    label_selector: str = "",
    count: int | None = None,
    unit: str = "kubelet",
    undo_after_s: float = UNDO_AFTER_S,
) -> JsonObject:
    """Stop the kubelet of nodes: to the cluster they are lost, while their containers run on."""
    return _lose(
        "node.kubelet-stop", {"unit": unit}, undo_after_s,
        node=node, label_selector=label_selector, count=count,
    )  # fmt: skip


def node_network_cut(
    interface: str,
    node: str = "",
    label_selector: str = "",
    count: int | None = None,
    undo_after_s: float = UNDO_AFTER_S,
) -> JsonObject:
    """Take the network interface of nodes down, our own way in with it: only their timer puts it back."""
    arguments = {"interface": interface, "may_cut_ssh": True}
    return _lose(
        "node.network-cut", arguments, undo_after_s, node=node, label_selector=label_selector, count=count
    )


def zone_cut(zone: str, interface: str, undo_after_s: float = UNDO_AFTER_S) -> JsonObject:
    """Cut the network of every node of a zone at once, by the label topology.kubernetes.io/zone."""
    if not zone:
        raise FaultRefused("which zone? state zone")
    arguments = {"interface": interface, "may_cut_ssh": True}
    return _lose("zone.cut", arguments, undo_after_s, label_selector=f"{ZONE_LABEL}={zone}", is_every=True)


def node_delete(
    node: str = "",
    label_selector: str = "",
    count: int | None = None,
    unit: str = "kubelet",
    undo_after_s: float = UNDO_AFTER_S,
) -> JsonObject:
    """Delete nodes from the API, with their kubelets stopped, as where a machine is taken out.

    Undoing starts the kubelets, which register their nodes again, and gives these back what else they had.
    """
    return _lose(
        "node.delete", {"unit": unit}, undo_after_s, deletion_step,
        node=node, label_selector=label_selector, count=count,
    )  # fmt: skip


def node_out_of_service(
    node: str = "",
    label_selector: str = "",
    count: int | None = None,
    unit: str = "kubelet",
    undo_after_s: float = UNDO_AFTER_S,
) -> JsonObject:
    """Stop the kubelet of nodes and, once they are missed, say that they are out of service.

    Their pods are forgotten at once, so that those of a StatefulSet are made elsewhere; but where only the
    kubelet was stopped, what ran on the node runs on until that is back.
    """
    return _lose(
        "node.out-of-service", {"unit": unit}, undo_after_s, out_of_service_step,
        node=node, label_selector=label_selector, count=count,
    )  # fmt: skip


def _lose(
    name: str,
    arguments: JsonObject,
    undo_after_s: float,
    step: MakeStep | None = None,
    *,
    node: str = "",
    label_selector: str,
    count: int | None = None,
    is_every: bool = False,
) -> JsonObject:
    from experiments.kube.nodes.loss import capture_loss  # with paramiko: others need not wait

    aim = aim_now()
    client, identity = aim.reach()
    chosen, others = choose_nodes(
        client, aim, node=node, label_selector=label_selector, count=count, is_every=is_every
    )
    captured = capture_loss(
        name, aim, client, identity, chosen, others, arguments, undo_after_s=undo_after_s, step=step
    )
    return inject(name, captured)

"""Actions for Chaos Toolkit on the network of the Kubernetes cluster of a game day's target.

An action is named like its fault, ``pods_partition`` for ``pods.partition``; rollback and probes are those of
``experiments.kube.actions``, and so is how pods are chosen.
"""

from __future__ import annotations

from experiments.kube.choosing.aim import aim_now
from experiments.kube.choosing.choice import RANDOM, choose_pods
from experiments.kube.inject import inject
from experiments.kube.network import capture_dns, capture_partition
from probes.json_types import JsonObject


def pods_partition(
    port: int,
    namespace: str = "",
    label_selector: str = "",
    pod: str = "",
    node: str = "",
    count: int | None = None,
    share: float | None = None,
    order: str = RANDOM,
    direction: str = "both",
) -> JsonObject:
    """Cut pods off by a network policy, ``direction`` both or ingress.

    That it is enforced is seen at ``port``, which every pod has to answer at before, and none after.
    """
    aim = aim_now()
    client, identity = aim.reach()
    chosen, others = choose_pods(
        client, aim, namespace=namespace, label_selector=label_selector, pod=pod, node=node, count=count,
        share=share, order=order,
    )  # fmt: skip
    captured = capture_partition(aim, client, identity, chosen, others, port=port, direction=direction)
    return inject("pods.partition", captured)


def dns_away(deployment: str = "coredns", namespace: str = "kube-system") -> JsonObject:
    """Scale the cluster's DNS to zero; its owner allows that by the label on the deployment itself."""
    aim = aim_now()
    client, identity = aim.reach()
    return inject("dns.away", capture_dns(aim, client, identity, deployment, namespace))

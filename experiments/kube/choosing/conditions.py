"""What has to be so on the cluster before a plan may be carried out, as the cluster says itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from experiments.injecting.permission import Condition
from experiments.kube.choosing.allowed import namespace_path, node_path, read_or_none, why_not
from experiments.kube.client import KubeClient, connect
from experiments.kube.cluster import Cluster
from experiments.kube.deadman.hold import why_not_set_up
from experiments.kube.lock import LOCK, look_at_lock
from experiments.kube.undoing.client_api import ClientApi
from probes.errors import TargetError

# What each fault does, by verb, resource and group, for whoever is to allow it.
_NEEDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "pod.kill": (("delete", "pods", ""),),
    "pod.evict": (("create", "pods/eviction", ""),),
    "node.cordon": (("patch", "nodes", ""),),
    "node.drain": (("patch", "nodes", ""), ("create", "pods/eviction", "")),
    "device-plugin.lose": (("patch", "nodes", ""),),
    "pods.partition": (
        ("patch", "pods", ""),
        ("get", "pods/proxy", ""),
        ("create", "networkpolicies", "networking.k8s.io"),
        ("delete", "networkpolicies", "networking.k8s.io"),
    ),
    "node.delete": (("delete", "nodes", ""), ("patch", "nodes", "")),
    "node.out-of-service": (("patch", "nodes", ""),),
    "deployment.bad-rollout": (("patch", "deployments", "apps"),),
    "deployment.scale": (("patch", "deployments", "apps"),),
}

_OF_LOCK = (("create", ""), ("get", LOCK), ("patch", LOCK), ("delete", LOCK))  # one cannot be made by name

# Which fault of hosts each of those is that are carried out on the node itself.
HOST_FAULTS = {
    "node.kubelet-stop": "service.stop",
    "node.network-cut": "link.down",
    "node.delete": "service.stop",
    "node.out-of-service": "service.stop",
    "zone.cut": "link.down",
}


def look_at_cluster(cluster: Cluster, faults: Sequence[str], nodes: Sequence[str]) -> list[Condition]:
    """Look at each namespace and node that would be hit, at what we may do there, and at who else does."""
    try:
        client = connect(cluster)
        rights = _rights(client, cluster, faults)
        others = _others(client, cluster)
        ends = [*_undone_without_us(client, cluster), *_on_hosts(cluster, faults, nodes)]
        return [*_marked(client, cluster, nodes), *rights, *others, *ends]
    except TargetError as error:
        return [Condition(name="cluster answers", is_met=False, observed=str(error))]


def _others(client: KubeClient, cluster: Cluster) -> Iterator[Condition]:
    """See whether each namespace is free, and whether we may keep others off it."""
    for space in cluster.namespaces:
        missing = [
            verb
            for verb, name in _OF_LOCK
            if not client.may(verb, "leases", group="coordination.k8s.io", namespace=space, name=name)
        ]
        why = f"RBAC of the cluster does not let us {', '.join(missing)} leases there, by which it is kept"
        if not missing:
            why = look_at_lock(ClientApi(client=client), space)
        yield Condition(
            name=f"no other game day in {space}", is_met=not why, observed=why or "none, and none can come"
        )


def _on_hosts(cluster: Cluster, faults: Sequence[str], nodes: Sequence[str]) -> list[Condition]:
    """Look at the hosts of the nodes, where a fault is carried out there: their owners say so on them."""
    wanted = [HOST_FAULTS[fault] for fault in faults if fault in HOST_FAULTS]
    if not wanted:
        return []
    from experiments.hosts.conditions import look_at_hosts  # with paramiko: others need not wait for it

    return look_at_hosts(cluster.nodes, dict.fromkeys(nodes, wanted))


def _undone_without_us(client: KubeClient, cluster: Cluster) -> Iterator[Condition]:
    if cluster.dead_man is not None:
        space = cluster.dead_man.namespace
        why = why_not_set_up(ClientApi(client=client), space)
        observed = why or f"by a dead-man in namespace {space}"
        yield Condition(name="undone without us", is_met=not why, observed=observed)


def _marked(client: KubeClient, cluster: Cluster, nodes: Sequence[str]) -> Iterator[Condition]:
    paths = [("namespace", name, namespace_path(name)) for name in cluster.namespaces]
    paths += [("node", name, node_path(name)) for name in nodes]
    for kind, name, path in paths:
        why = why_not(kind, name, read_or_none(client, path))
        yield Condition(name=f"{kind} {name} allowed", is_met=not why, observed=why or "by its label")


def _rights(client: KubeClient, cluster: Cluster, faults: Sequence[str]) -> Iterator[Condition]:
    for fault in dict.fromkeys(faults):
        for verb, resource, group in _NEEDS.get(fault, ()):
            spaces = ("",) if resource == "nodes" else cluster.namespaces
            for space in spaces:
                is_met = client.may(verb, resource, group=group, namespace=space)
                where = f" in {space}" if space else ""
                observed = (
                    "we may" if is_met else f"RBAC of the cluster does not let us {verb} {resource}{where}"
                )
                yield Condition(name=f"may {verb} {resource}{where}", is_met=is_met, observed=observed)

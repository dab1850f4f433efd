"""The client of the cluster that an experiment names."""

from __future__ import annotations

from experiments.kube.cluster import Cluster
from probes.errors import TargetError
from probes.kubernetes_api import FORBIDDEN, GONE, JSON, MERGE, STRATEGIC, ApiRefused, KubeClient, connect_api

__all__ = [
    "FORBIDDEN",
    "GONE",
    "JSON",
    "MERGE",
    "STRATEGIC",
    "ApiRefused",
    "KubeClient",
    "connect",
    "connect_to",
]


def connect(cluster: Cluster) -> KubeClient:
    """Return the client of a cluster; nothing is asked yet.

    Raises:
        ConfigError: the kubeconfig cannot be read, or has no such context.
    """
    return connect_api(cluster.kubeconfig, cluster.context)


def connect_to(cluster: Cluster, uid: str) -> KubeClient:
    """Return the client of a cluster that is known already.

    Raises:
        TargetError: it does not answer, or another one answers in its place.
    """
    client = connect(cluster)
    found = client.identity()
    if found.uid != uid:
        raise TargetError(f"{found} is not the cluster that was planned ({uid}); nothing is touched")
    return client

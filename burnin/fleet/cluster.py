"""The Kubernetes cluster of a fleet: which one it is, what it lets us do, and where its nodes are met."""

from __future__ import annotations

from dataclasses import replace

from burnin.fleet.host import Fleet, Host
from burnin.fleet.launchers.kubernetes import RIGHTS, check_jobs
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.kubernetes_api import KubeClient, connect_api

CLUSTER = "cluster"  # key of the record's spec
# What running Jobs takes: verb, resource, group.
NEEDED = (
    ("create", "jobs", "batch"),
    ("patch", "jobs", "batch"),
    ("delete", "jobs", "batch"),
    ("list", "pods", ""),
    ("watch", "pods", ""),
    ("get", "pods/attach", ""),
    ("create", "pods/attach", ""),
)


def look_at_cluster(fleet: Fleet, *, uid: str = "") -> tuple[Fleet, JsonObject | None]:
    """Return the fleet with the addresses of its nodes, and which cluster they are of; None: of none.

    Raises:
        ConfigError: the fleet file lacks something, we may not, or it is not the cluster ``uid``.
        TargetError: the cluster does not answer.
    """
    if not any(_is_there(host) for host in fleet.hosts):
        return fleet, None
    jobs = check_jobs(fleet)
    client = connect_api()
    identity = client.identity()
    if uid and identity.uid != uid:
        raise ConfigError(f"{identity} is not the cluster of this run ({uid}); set KUBECONFIG to that one")
    check_rights(client, jobs.namespace)
    addresses = node_addresses(client)
    hosts = tuple(_met(host, addresses) if _is_there(host) else host for host in fleet.hosts)
    return replace(fleet, hosts=hosts), identity.to_json()


def _is_there(host: Host) -> bool:
    return host.access.launcher == "kubernetes"


def check_rights(client: KubeClient, namespace: str) -> None:
    """See that the cluster lets us run Jobs, before the first of them is created.

    Raises:
        ConfigError: it does not, with every right that is missing.
    """
    missing = [
        f"{verb} {resource}"
        for verb, resource, group in NEEDED
        if not client.may(verb, resource, group=group, namespace=namespace)
    ]
    if missing:
        raise ConfigError(
            f"kubernetes: RBAC of the cluster does not let us {', '.join(missing)} in namespace {namespace};"
            f" {RIGHTS} has what is needed"
        )


def node_addresses(client: KubeClient) -> dict[str, str]:
    """Return where each node is reached by the others: names of nodes are seldom names of hosts."""
    found: dict[str, str] = {}
    for node in client.listed("/api/v1/nodes"):
        for address in node["status"].get("addresses") or ():
            if address["type"] == "InternalIP":
                found.setdefault(str(node["metadata"]["name"]), str(address["address"]))
    return found


def _met(host: Host, addresses: dict[str, str]) -> Host:
    if host.access.address is not None or host.name not in addresses:
        return host
    return replace(host, access=replace(host.access, address=addresses[host.name]))

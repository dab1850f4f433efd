"""The Kubernetes cluster of a fleet: which one it is, what it lets us do, and where its nodes are met."""

from __future__ import annotations

from dataclasses import replace

from burnin.fleet.host import Fleet, Host
from burnin.fleet.launchers.kubernetes import RIGHTS, check_jobs
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.kubernetes_api import Identity, KubeClient, connect_api
from reports.run import Run

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


def look_at_cluster(fleet: Fleet, *, resumed: Run | None = None) -> tuple[Fleet, JsonObject | None]:
    """Return the fleet with the addresses of its nodes, and which cluster they are of; None: of none.

    Raises:
        ConfigError: the fleet file lacks something, we may not, or it is not the cluster of ``resumed``.
        TargetError: the cluster does not answer.
    """
    if not any(_is_there(host) for host in fleet.hosts):
        return fleet, None
    jobs = check_jobs(fleet)
    client = connect_api()
    identity = client.identity()
    if resumed is not None:
        _refuse_another(identity, resumed)
    check_rights(client, jobs.namespace)
    addresses = node_addresses(client)
    hosts = tuple(_met(host, addresses) if _is_there(host) else host for host in fleet.hosts)
    return replace(fleet, hosts=hosts), identity.to_json()


def cluster_of(run: Run) -> KubeClient:
    """Return the cluster that a run was on: nodes of another may have the same names.

    Raises:
        ConfigError: it is another one.
        TargetError: it does not answer.
    """
    client = connect_api()
    if _uid_of(run):
        _refuse_another(client.identity(), run)
    return client


def _refuse_another(found: Identity, run: Run) -> None:
    if (uid := _uid_of(run)) and found.uid != uid:
        raise ConfigError(f"{found} is not the cluster of {run.path} ({uid}); set KUBECONFIG to that one")


def _uid_of(run: Run) -> str:
    """Return what names the cluster of a run; empty: it was on none, or it does not say."""
    return str((run.header.spec.get(CLUSTER) or {}).get("uid") or "")


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

"""What a cluster is made of: its clocks, addresses and folders. Nothing here touches the machine."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

MARK = (
    "OVERPROOF_CLUSTER"  # its value, the cluster's folder, stands in the environment of every process of it
)
KUBECONFIG_VARIABLE = "OVERPROOF_TEST_KUBECONFIG"  # names the cluster to the tests that need one
KUBECONFIGS_VARIABLE = "OVERPROOF_TEST_KUBECONFIGS"  # where several share the tests: one for each, in order
CLUSTERS_MAX = 4  # beside each other on a machine: of inotify instances it has no more
CONTROL_PLANE = "control-plane"
ZONE_COUNT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The platform's own clocks, shorter than those of a cluster that people use; in whole seconds."""

    status_update_s: int = 2  # how often a kubelet says how it is
    lease_duration_s: int = 8  # a kubelet renews its lease in a quarter of it
    node_monitor_period_s: int = 1
    node_monitor_grace_s: int = 8  # silence after which a node is not ready
    toleration_s: int = 5  # how long a pod stays on such a node, if it says nothing else
    # Not 1: once all nodes were silent, as on a busy machine, Kubernetes stops evictions by a limiter that
    # says its own rate is 1: it is never exchanged for one of that rate.
    pod_eviction_rate_per_s: float = 2.0
    autoscaler_s: int = 5  # how often an autoscaler looks


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A worker: its name, its address, and the addresses of its pods."""

    name: str
    zone: str
    address: str
    pods: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One cluster."""

    folder: Path
    network: int  # 10.NETWORK.0.0/16 is the cluster's
    node_count: int = 3
    clocks: Clocks = field(default_factory=Clocks)

    @property
    def link(self) -> str:
        """The machine's end of the wire to the cluster."""
        return f"opk{self.network}"

    @property
    def machine_address(self) -> str:
        """The machine's own address on the network of the nodes."""
        return f"10.{self.network}.0.1"

    @property
    def address(self) -> str:
        """Where the control plane lives."""
        return f"10.{self.network}.0.2"

    @property
    def server(self) -> str:
        """The URL of its API."""
        return f"https://{self.address}:6443"

    @property
    def pods(self) -> str:
        """The addresses of all pods."""
        return f"10.{self.network}.64.0/18"

    @property
    def services(self) -> str:
        """The addresses of services."""
        return f"10.{self.network}.128.0/18"

    @property
    def api_service_address(self) -> str:
        """The first address of the services: the API as seen by pods."""
        return str(next(ipaddress.ip_network(self.services).hosts()))

    @property
    def control_groups(self) -> str:
        """The folder of its control groups below each hierarchy."""
        return f"overproof-cluster-{self.network}"

    @property
    def kubeconfig(self) -> Path:
        """The file with which people and tests reach it."""
        return self.folder / "kubeconfig"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its workers."""
        return tuple(self._node(number) for number in range(1, self.node_count + 1))

    def _node(self, number: int) -> Node:
        name = f"node-{number}"
        return Node(
            name=name,
            zone=f"zone-{(number - 1) % ZONE_COUNT + 1}",
            address=f"10.{self.network}.0.{10 + number}",
            pods=f"10.{self.network}.{64 + number}.0/24",
            folder=self.folder / name,
        )


def cache_folder() -> Path:
    """Return where programs, images and the running cluster are kept: outside every checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overproof"


def cluster_folder() -> Path:
    """Return the folder of the one cluster that ``up`` and ``down`` mean."""
    return cache_folder() / "cluster"


def cluster_folders(first: Path, count: int = CLUSTERS_MAX) -> list[Path]:
    """Return the folders of clusters that run beside each other."""
    return [first, *(first.with_name(f"{first.name}-{number}") for number in range(2, count + 1))]

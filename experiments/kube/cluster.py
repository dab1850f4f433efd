"""A Kubernetes cluster that an experiment may hit: how it is reached, and which one it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from experiments.hosts.host import Host, host_from_json
from probes.json_types import JsonObject
from probes.kubernetes_api import Identity

__all__ = [
    "ALLOWED_LABEL",
    "ALLOWED_VALUE",
    "Cluster",
    "DeadMan",
    "Identity",
    "cluster_from_json",
    "is_allowed",
]

ALLOWED_LABEL = "overproof.dev/gameday"  # on a namespace and a node, by whoever owns them
ALLOWED_VALUE = "allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMan:
    """What undoes in the cluster when we are gone, and where it runs."""

    namespace: str
    image: str
    python: str = "python3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What an experiment names of it; empty: what kubectl would take."""

    namespaces: tuple[str, ...]  # whose pods may be hit
    context: str = ""
    kubeconfig: str = ""
    dead_man: DeadMan | None = None  # None: nobody in the cluster undoes without us
    nodes: tuple[Host, ...] = ()  # that are reached over SSH too, each by its node's name
    clocks: tuple[tuple[str, float], ...] = ()  # of the platform, as the experiment states them

    def to_json(self) -> JsonObject:
        """Return it as plain JSON, for plan and ledger."""
        plain = {"namespaces": list(self.namespaces), "clocks": dict(self.clocks)}
        return asdict(self) | plain | {"nodes": [host.to_json() for host in self.nodes]}


def cluster_from_json(row: JsonObject) -> Cluster:
    """Return the cluster that ``to_json`` wrote."""
    dead_man = DeadMan(**row["dead_man"]) if row.get("dead_man") else None
    made = {"namespaces": tuple(row["namespaces"]), "dead_man": dead_man}
    made |= {"nodes": tuple(host_from_json(each) for each in row.get("nodes", ()))}
    return Cluster(**(row | made | {"clocks": tuple((row.get("clocks") or {}).items())}))


def is_allowed(labels: JsonObject | None) -> bool:
    """Say whether labels let game days hit what carries them."""
    return (labels or {}).get(ALLOWED_LABEL) == ALLOWED_VALUE

"""What a fault is, and the table of those there are.

The ledger names a fault by its key in this table and keeps plain JSON arguments, so undoing never runs code
that a file on the disk has chosen; but for ``declared``, where the experiment has chosen it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from experiments.host_agent.faults import FAULTS as HOST_FAULTS
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject

# Name -> "module:attribute" of the fault; imported when it is used.
FAULTS = {
    "replica.kill": "experiments.faults.replica:KILL",
    "replica.hang": "experiments.faults.hang:HANG",
    "replica.slow": "experiments.faults.pressure:SLOW",
    "replica.cpu": "experiments.faults.pressure:CPU",
    "replica.memory": "experiments.faults.memory:MEMORY",
    "replica.crash-loop": "experiments.faults.spoil:CRASH_LOOP",
    "replica.wrong": "experiments.faults.spoil:WRONG",
    "replica.spot": "experiments.faults.spot:SPOT",
    "replicas.restart": "experiments.faults.rolling:ROLLING_RESTART",
    "gateway.trouble": "experiments.faults.gateway:TROUBLE",
    "rank.kill": "experiments.training.faults.ranks:KILL",
    "rank.hang": "experiments.training.faults.ranks:HANG",
    "rank.slow": "experiments.training.faults.ranks:SLOW",
    "checkpoint.corrupt": "experiments.training.faults.checkpoint:CORRUPT",
    "node.lose": "experiments.training.faults.node:LOSE",
    "storage.cut": "experiments.training.faults.storage:CUT",
    "declared": "experiments.faults.declared:DECLARED",
    "pod.kill": "experiments.kube.faults:POD_KILL",
    "pod.evict": "experiments.kube.faults:POD_EVICT",
    "container.kill": "experiments.kube.containers.faults:CONTAINER_KILL",
    "container.hang": "experiments.kube.containers.faults:CONTAINER_HANG",
    "node.cordon": "experiments.kube.faults:NODE_CORDON",
    "node.drain": "experiments.kube.faults:NODE_DRAIN",
    "node.pressure": "experiments.kube.nodes.pressure:NODE_PRESSURE",
    "device-plugin.lose": "experiments.kube.nodes.device_plugin:DEVICE_PLUGIN_LOSE",
    "deployment.bad-rollout": "experiments.kube.faults:DEPLOYMENT_BAD_ROLLOUT",
    "deployment.scale": "experiments.kube.faults:DEPLOYMENT_SCALE",
    "node.kubelet-stop": "experiments.kube.nodes.loss:KUBELET_STOP",
    "node.network-cut": "experiments.kube.nodes.loss:NETWORK_CUT",
    "pods.partition": "experiments.kube.network:PARTITION",
    "dns.away": "experiments.kube.network:DNS_AWAY",
    "api.slow": "experiments.kube.api.faults:API_SLOW",
    "api.away": "experiments.kube.api.faults:API_AWAY",
    "zone.cut": "experiments.kube.nodes.loss:ZONE_CUT",
    "node.delete": "experiments.kube.nodes.objects:DELETE",
    "node.out-of-service": "experiments.kube.nodes.objects:GIVEN_UP",
}
PLATFORM: Final = "platform"
UNDO: Final = "undo"
# Those of hosts are carried out there; here each is a constant, PROCESS_STOP for process.stop.
FAULTS |= {
    name: f"experiments.hosts.faults:{name.upper().replace('.', '_').replace('-', '_')}"
    for name in HOST_FAULTS
}


class FaultRefused(TargetError):
    """The target is not, or no longer, one that may be hit. Nothing was injected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Whether a fault took hold on its target, and what was seen there."""

    is_verified: bool
    observed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undoing:
    """What undoing came to."""

    is_restored: bool  # seen, not assumed
    did: str  # what we had to do; says so when it was nothing
    has_acted: bool  # False: it had healed without us
    is_mending: bool = True  # False: the platform had healed what it was to; the rest was ours to put back
    is_seen: bool = True  # False: carried out, and nobody can look whether it is gone
    ago_s: float = 0.0  # it was done so long ago, as by a timer on a host that could not be reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault as four functions over plain JSON. ``captured`` is what the fault's capture returned."""

    name: str
    fidelity: str  # S synthetic signal, P process, N network, K Kubernetes, H hardware knob
    # Who ends it: ``platform``, whose healing is what we test, clocked from the injection; or ``undo``, as
    # with a slow network: what we test is how the service stands it, and that it is well again afterwards.
    ends_by: Literal["platform", "undo"]
    subject: Callable[[JsonObject], str]  # of the captured state
    recheck: Callable[[JsonObject], None]  # raises FaultRefused when the bounds no longer hold
    inject: Callable[[JsonObject], None]
    verify: Callable[[JsonObject], Verification]
    undo: Callable[[JsonObject], Undoing]  # idempotent, also when the fault was armed and never injected
    # Low: a process or some requests. Medium: a host or a device for a while. High: may stay, may hit others,
    # or may set off the site's automation.
    risk: Literal["low", "medium", "high"] = "low"
    is_undoable: bool = True
    needs: tuple[str, ...] = ()  # what must be there, in words for a person
    covers: tuple[str, ...] = ()  # ids of probes/failure_categories.yaml: what it brings about
    heals: str = ""  # who is expected to heal it; empty: nobody but undo
    is_undone_anywhere: bool = False  # from any machine, not only the one that has injected it
    # Which of ``covers`` one injection brings about, where a fault is several in one; by the captured state.
    narrow: Callable[[JsonObject], tuple[str, ...]] | None = None

    def covered(self, captured: JsonObject) -> tuple[str, ...]:
        """Return the categories that one injection brings about."""
        return self.covers if self.narrow is None else self.narrow(captured)


def load_fault(name: str) -> Fault:
    """Return the fault of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FAULTS:
        raise ConfigError(f"fault {name!r} is unknown to this overproof; one of {', '.join(FAULTS)}")
    module, _, attribute = FAULTS[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Fault)
    return found

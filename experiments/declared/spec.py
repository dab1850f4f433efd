"""``target``, ``faults`` and ``harmless`` of an experiment's extension, as a file states them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from experiments.declared.fault import (
    LAB,
    OUR_MODULES,
    TRAINING,
    Declared,
    Target,
    foreign_actions,
    module_of,
)
from experiments.hosts.host import FOLDER, Host
from experiments.kube.cluster import Cluster, DeadMan
from experiments.kube.deadman.mirror import NAMESPACE
from experiments.kube.deadman.objects import IMAGE
from experiments.training.job_spec import JobSpec
from probes.json_types import JsonObject
from probes.spec import Spec

WITHIN_S = 10.0


class HostSpec(Spec):
    """A host that is reached over SSH; what is absent the user's SSH configuration says."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="As the report calls it.")
    address: str | None = Field(default=None, description="Absent: its name.")
    user: str | None = Field(default=None, description="Who logs in.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port of its sshd.")
    key_file: str | None = Field(default=None, description="Private key that opens it.")
    proxy_jump: str | None = Field(default=None, description="[user@]host[:port] on the way; none: no hop.")
    python: str = Field(default="python3", description="Python 3.10 or later, on the host.")
    wrapper: tuple[str, ...] = Field(default=(), description="Words before it, such as [sudo, -n].")
    folder: str = Field(
        default=FOLDER,
        pattern=r"^/",
        description="Ours on the host; gameday-allowed in it permits game days.",
    )

    def to_host(self) -> Host:
        """Return the host."""
        return Host(**self.model_dump())


class DeadManSpec(Spec):
    """A Job of ours in the cluster that undoes when the controller is gone."""

    namespace: str = Field(default=NAMESPACE, description="Where our manifests have put its account.")
    image: str = Field(default=IMAGE, description="Any with a Python from 3.10 on.")
    python: str = Field(default="python3", description="Its interpreter.")


class ClocksSpec(Spec):
    """Settings of the cluster's controllers, in seconds; absent: as its ConfigMap says, else the defaults."""

    node_monitor_grace_s: float | None = Field(
        default=None, gt=0, description="Silence after which a node is not ready (50 by default)."
    )
    node_monitor_period_s: float | None = Field(
        default=None, gt=0, description="How often that is looked at (5 by default)."
    )
    node_eviction_rate_per_s: float | None = Field(
        default=None, gt=0, description="Nodes a second that are given up (0.1 by default)."
    )


class KubernetesSpec(Spec):
    """A Kubernetes cluster; which one answers is shown in the plan, and holds for the whole day."""

    context: str = Field(default="", description="Of the kubeconfig; absent: its current one.")
    kubeconfig: str = Field(default="", description="File; absent: what kubectl takes, else the pod's own.")
    namespaces: tuple[str, ...] = Field(
        min_length=1, description="Whose pods may be hit; each has to be labelled as allowed."
    )

    dead_man: DeadManSpec | None = Field(
        default=None, description="Undoes in the cluster without us; absent: nobody does."
    )
    nodes: tuple[str | HostSpec, ...] = Field(
        default=(),
        description="Nodes that are reached over SSH too, for faults of nodes: names as SSH knows them, or"
        " more about each; its name is the node's.",
    )
    clocks: ClocksSpec = Field(
        default_factory=ClocksSpec, description="The platform's clocks that its API does not show."
    )

    def to_cluster(self) -> Cluster:
        """Return the cluster."""
        dead_man = None if self.dead_man is None else DeadMan(**self.dead_man.model_dump())
        nodes = tuple(Host(name=node) if isinstance(node, str) else node.to_host() for node in self.nodes)
        clocks = tuple(self.clocks.model_dump(exclude_none=True).items())
        return Cluster(**(self.model_dump() | {"dead_man": dead_man, "nodes": nodes, "clocks": clocks}))


class TargetSpec(Spec):
    """A target other than the lab."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="A folder targets/NAME under --out stands for it; without hosts it has to be"
        " marked as allowed.",
    )
    endpoint: str = Field(default="", description="What the load asks; absent: what the workload names.")
    hosts: tuple[str | HostSpec, ...] = Field(
        default=(), description="Hosts that our actions may hit: names as SSH knows them, or more about each."
    )

    kubernetes: KubernetesSpec | None = Field(
        default=None, description="Cluster whose pods and nodes our actions may hit."
    )
    job: JobSpec | None = Field(
        default=None, description="Log of a training job, which is watched in place of traffic."
    )

    @field_validator("name")
    @classmethod
    def _is_none_of_ours(cls, name: str) -> str:
        if name in (LAB, TRAINING):
            raise ValueError(f"{name!r} is our own: write target: {name}")
        return name

    @field_validator("hosts")
    @classmethod
    def _are_there_once(cls, hosts: tuple[str | HostSpec, ...]) -> tuple[str | HostSpec, ...]:
        names = [host if isinstance(host, str) else host.name for host in hosts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{_listed(twice)}: there twice; keep one")
        return hosts

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> TargetSpec:
        if self.kubernetes is not None and (self.hosts or self.job):
            raise ValueError("kubernetes: is not mixed with hosts or a job; write two experiments")
        return self

    @property
    def is_judged_without_traffic(self) -> bool:
        """Whether more than traffic can show how it stands a fault."""
        return bool(self.hosts or self.job or self.kubernetes)

    def to_target(self, folder: Path) -> Target:
        """Return the target; the path of its log counts from ``folder``."""
        hosts = (Host(name=host) if isinstance(host, str) else host.to_host() for host in self.hosts)
        job = None if self.job is None else self.job.to_watched(folder)
        cluster = None if self.kubernetes is None else self.kubernetes.to_cluster()
        return Target(name=self.name, endpoint=self.endpoint, hosts=tuple(hosts), job=job, kubernetes=cluster)


class FaultSpec(Spec):
    """What an action that is not ours breaks."""

    action: str = Field(description="Name of the action in the method.")
    subject: str = Field(min_length=1, description="What it hits, such as deployment:chat.")
    verify: str | dict[str, Any] | None = Field(
        default=None,
        description="Name of a probe of the experiment, or a probe: within its tolerance the fault is there.",
    )
    undo: str | None = Field(default=None, description="Name of the rollback that ends it.")
    ends_by: Literal["undo", "platform"] = Field(default="undo", description="Who is to end it.")
    within_s: float = Field(
        default=WITHIN_S, gt=0, le=600, description="Seconds in which it takes hold, and in which it is gone."
    )


def to_faults(
    specs: Sequence[FaultSpec], harmless: Sequence[str], document: JsonObject
) -> tuple[Declared, ...]:
    """Return the declared faults, with the activities that they name.

    Raises:
        ValueError: one names what the experiment does not have.
    """
    actions = {str(activity["name"]) for activity in foreign_actions(document)}
    for name in [spec.action for spec in specs] + [*harmless]:
        if name not in actions:
            raise ValueError(
                f"{name!r} is no action of the method other than ours; there: {_listed(actions)}"
            )
    if twice := {spec.action for spec in specs if [s.action for s in specs].count(spec.action) > 1}:
        raise ValueError(f"{_listed(twice)}: declared twice; keep one")
    return tuple(_to_fault(spec, document) for spec in specs)


def _to_fault(spec: FaultSpec, document: JsonObject) -> Declared:
    if spec.ends_by == "undo" and spec.undo is None:
        raise ValueError(f"{spec.action!r}: undo is missing: a fault that only undoing ends needs one")
    return Declared(
        action=spec.action,
        subject=spec.subject,
        ends_by=spec.ends_by,
        verify=None if spec.verify is None else _probe(spec, document),
        undo=None if spec.undo is None else _undo(spec, document),
        within_s=spec.within_s,
    )


def _probe(spec: FaultSpec, document: JsonObject) -> JsonObject:
    from experiments.guards.spec import check_probe

    if isinstance(spec.verify, dict):
        return check_probe({"name": f"see {spec.action}", "type": "probe"} | spec.verify)
    hypothesis = document.get("steady-state-hypothesis") or {}
    probes = [*hypothesis.get("probes", ()), *document["method"]]
    found = next((p for p in probes if p.get("name") == spec.verify and p.get("type") == "probe"), None)
    if found is None:
        raise ValueError(f"{spec.action!r}: verify: {spec.verify!r} is no probe of this experiment")
    return check_probe(found)


def _undo(spec: FaultSpec, document: JsonObject) -> JsonObject:
    places = [*(document.get("rollbacks") or ()), *document["method"]]
    found = next((a for a in places if a.get("name") == spec.undo and a.get("type") == "action"), None)
    if found is None:
        names = {str(a.get("name")) for a in document.get("rollbacks") or ()}
        raise ValueError(f"{spec.action!r}: undo: {spec.undo!r} is none of the rollbacks: {_listed(names)}")
    if module_of(found) in OUR_MODULES:
        raise ValueError(f"{spec.action!r}: undo: {spec.undo!r} undoes our own faults only")
    assert isinstance(found, dict)
    return found


def _listed(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"

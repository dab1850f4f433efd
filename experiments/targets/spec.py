"""``target`` of an experiment's extension, as a file states it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from experiments.hosts.host import FOLDER, Host
from experiments.kube.cluster import Cluster, DeadMan
from experiments.kube.deadman.mirror import NAMESPACE
from experiments.kube.deadman.objects import IMAGE
from experiments.targets.all import OURS
from experiments.targets.target import Target
from experiments.training.job_spec import JobSpec
from probes.spec import Spec


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
        if name in OURS:
            raise ValueError(f"{name!r} is our own: write target: {name}")
        return name

    @field_validator("hosts")
    @classmethod
    def _are_there_once(cls, hosts: tuple[str | HostSpec, ...]) -> tuple[str | HostSpec, ...]:
        names = [host if isinstance(host, str) else host.name for host in hosts]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(repr(name) for name in sorted(twice))}: there twice; keep one")
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

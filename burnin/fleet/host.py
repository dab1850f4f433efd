"""The hosts of a fleet: what each is called, how it is reached, where it stands, what it should have."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a host stands; None: the fleet file does not say."""

    rack: str | None = None
    pdu: str | None = None
    hall: str | None = None
    switch: str | None = None  # the leaf switch, where one switch serves all rails
    nvlink_domain: str | None = None  # GB200, GB300: hosts whose GPUs share NVSwitches
    rails: tuple[str, ...] = ()  # by rail number: the leaf switch of that rail; empty: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a host is reached; None: what the user's own SSH configuration says, or the default."""

    launcher: str = "ssh"  # "local", "ssh", "slurm" or "kubernetes"
    address: str | None = None  # None: the host's name
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None
    python: str = "python3"
    wrapper: tuple[str, ...] = ()  # words that go before the interpreter, such as docker run --rm -i IMAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What hardware a host should have; None: not stated."""

    gpus: int | None = None
    model: str | None = None
    nics: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host of a fleet."""

    name: str
    access: Access = field(default_factory=Access)
    place: Place = field(default_factory=Place)
    expected: Expected = field(default_factory=Expected)
    permission: str | None = (
        None  # who says it is free: "listed", "drained", "reserved"; None: nobody, refuse
    )
    ask: str | None = None  # who is asked whether it is free: "slurm", "kubernetes"; None: nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCap:
    """How much load a rack, PDU or hall bears."""

    kind: str  # "rack", "pdu" or "hall"
    name: str
    watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterJobs:
    """How hosts of a Kubernetes cluster run a program: as a Job on each of them."""

    image: str  # with the node's own torch, by digest
    namespace: str = "overproof-burnin"
    gpu_resource: str = "nvidia.com/gpu"
    resources: dict[str, str] = field(default_factory=dict)  # limits beside the GPUs, such as rdma/hca: "1"
    host_paths: tuple[str, ...] = ()  # folders of the node that the container sees, at the same place


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Hosts that go through acceptance together."""

    name: str
    hosts: tuple[Host, ...]
    power_caps: tuple[PowerCap, ...] = ()
    expected_versions: dict[str, str] = field(default_factory=dict)  # fingerprint key -> wanted value
    salloc_options: tuple[str, ...] = ()  # for the job that the launcher slurm asks for
    kubernetes: ClusterJobs | None = None  # None: no host is reached through Kubernetes

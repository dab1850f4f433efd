"""A file of faults for a simulated fleet, for a rehearsal in which somebody else shall find them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from burnin.fleet.simulation.fault import BAD_LEAF, BAD_UPLINK, FLAPPING, HOST_KINDS, KINDS, PAIR_KINDS, Fault
from burnin.fleet.topology import Topology
from probes.errors import ConfigError
from probes.spec import Spec, load_spec

FaultKind = Literal[
    "dead host",
    "hang",
    "crash",
    "wrong results",
    "sockets",
    "slow gpu",
    "slow nic",
    "flapping link",
    "slow pair",
    "dead pair",
    "bad leaf switch",
    "bad uplink",
    "bad rail",
]


class FaultSpec(Spec):
    """One thing that is wrong."""

    kind: FaultKind
    hosts: Annotated[
        tuple[str, ...], Field(max_length=2, description="the host, or both of a pair; such as sim0001")
    ] = ()
    rail: Annotated[
        int | None, Field(ge=0, description="of an adapter, a leaf switch or the whole fleet")
    ] = None
    speed: Annotated[float, Field(gt=0, lt=1, description="share of the healthy speed that is left")] = 0.7
    every_s: Annotated[float, Field(gt=0, description="mean time between dips of a flapping link")] = 10.0

    @model_validator(mode="after")
    def _has_its_hosts(self) -> FaultSpec:
        needed = (
            2 if self.kind in PAIR_KINDS else 1 if self.kind in (*HOST_KINDS, BAD_LEAF, BAD_UPLINK) else 0
        )
        if len(self.hosts) != needed:
            what = "one of the hosts behind it" if self.kind in (BAD_LEAF, BAD_UPLINK) else "its hosts"
            raise ValueError(f"{self.kind} needs {needed} in hosts ({what}), got {len(self.hosts)}")
        return self


class FaultFileSpec(Spec):
    """All that is wrong with a simulated fleet."""

    faults: tuple[FaultSpec, ...]


def load_faults(path: Path, topology: Topology) -> list[Fault]:
    """Read a file of faults.

    Raises:
        ConfigError: it has another shape, or names what the simulated fleet does not have.
    """
    spec = load_spec(path, FaultFileSpec)
    return [_to_fault(fault, number, path, topology) for number, fault in enumerate(spec.faults)]


def _to_fault(spec: FaultSpec, number: int, path: Path, topology: Topology) -> Fault:
    unknown = next((host for host in spec.hosts if host not in topology.hosts), None)
    where = f"{path}: faults.{number}"
    if unknown is not None:
        raise ConfigError(
            f"{where}.hosts: got {unknown!r}; the hosts are {topology.hosts[0]} to {topology.hosts[-1]}"
        )
    if spec.rail is not None and spec.rail >= topology.rails_count:
        raise ConfigError(f"{where}.rail: got {spec.rail}; rails go from 0 to {topology.rails_count - 1}")
    assert spec.kind in KINDS
    switch = _switch(spec, topology)
    return Fault(
        kind=spec.kind,
        hosts=spec.hosts if switch is None else (),
        switch=switch,
        rail=spec.rail if spec.rail is not None or spec.kind == BAD_UPLINK else 0,
        speed=spec.speed,
        every_s=spec.every_s if spec.kind == FLAPPING else 0.0,
    )


def _switch(spec: FaultSpec, topology: Topology) -> str | None:
    if spec.kind == BAD_LEAF:
        rails = topology.rails.get(spec.hosts[0], ())
        return rails[spec.rail or 0] if rails else topology.fabric[spec.hosts[0]]
    return topology.fabric[spec.hosts[0]] if spec.kind == BAD_UPLINK else None

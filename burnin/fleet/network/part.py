"""The parts that a trial puts to the test: what is between the memory of one GPU and that of another."""

from __future__ import annotations

from typing import NamedTuple

from burnin.fleet.network.trial import FULL, RAIL, Trial
from burnin.fleet.topology import Topology

# A host's parts: what is inside it, its side of NVLink between hosts, its side of the fabric of the NICs.
INSIDE, NVLINK_SIDE, NIC_SIDE = "inside", "nvlink side", "nic side"
# What hosts share: the leaf switches of a fabric, an NVLink domain, and what leads out of a fabric.
LEAF, DOMAIN, OUTWARD = "leaf", "domain", "outward"
SIDES = (INSIDE, NVLINK_SIDE, NIC_SIDE)
SHARED = (LEAF, DOMAIN, OUTWARD)


class Part(NamedTuple):
    """One part."""

    kind: str
    name: str  # of the host, fabric or domain


def parts_of(trial: Trial, topology: Topology) -> frozenset[Part]:
    """Return all parts that the data of a trial goes through."""
    if len(trial.hosts) == 1:
        return frozenset({Part(INSIDE, trial.hosts[0])})
    parts: set[Part] = set()
    domains: dict[str, list[str]] = {}
    for host in trial.hosts:
        domains.setdefault(topology.nvlink_domain.get(host, ""), []).append(host)
    for domain, members in domains.items():
        if trial.path == FULL and domain and len(members) > 1:
            parts |= {Part(NVLINK_SIDE, host) for host in members} | {Part(DOMAIN, domain)}
    if is_within_nvlink(trial, topology):
        return frozenset(parts)
    parts |= {Part(NIC_SIDE, host) for host in trial.hosts}
    fabrics = {topology.fabric[host] for host in trial.hosts if host in topology.fabric}
    parts |= {Part(LEAF, fabric) for fabric in fabrics}
    if len(fabrics) > 1:
        parts |= {Part(OUTWARD, fabric) for fabric in fabrics}
    return frozenset(parts)


def is_within_nvlink(trial: Trial, topology: Topology) -> bool:
    """Say whether all data goes over the NVLinks of one domain."""
    first = topology.nvlink_domain.get(trial.hosts[0])
    return (
        trial.path == FULL
        and first is not None
        and all(topology.nvlink_domain.get(host) == first for host in trial.hosts)
    )


def scope_of(trial: Trial, topology: Topology) -> str:
    """Return over what the data goes; only trials of one scope are alike."""
    if len(trial.hosts) == 1:
        return INSIDE
    if is_within_nvlink(trial, topology):
        return DOMAIN
    fabrics = {topology.fabric.get(host) for host in trial.hosts}
    return "any" if None in fabrics else LEAF if len(fabrics) == 1 else OUTWARD


def path_class(path: str) -> str:
    """Return what makes paths alike: how many rails, not which."""
    return f"{path.count(',') + 1} rails" if path.startswith(RAIL) else path

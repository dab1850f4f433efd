"""What can be wrong in a simulated fleet, and seeded draws of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from burnin.fleet.topology import Topology

# What is wrong with one host.
DEAD, HANGS, CRASHES, CORRUPTS, SOCKETS_ONLY = "dead host", "hang", "crash", "wrong results", "sockets"
SLOW_GPU, SLOW_NIC, FLAPPING = "slow gpu", "slow nic", "flapping link"
# What is wrong with what hosts share.
PAIR_SLOW, PAIR_DEAD, BAD_LEAF, BAD_UPLINK, BAD_RAIL = (
    "slow pair",
    "dead pair",
    "bad leaf switch",
    "bad uplink",
    "bad rail",
)
HOST_KINDS = (DEAD, HANGS, CRASHES, CORRUPTS, SOCKETS_ONLY, SLOW_GPU, SLOW_NIC, FLAPPING)
PAIR_KINDS = (PAIR_SLOW, PAIR_DEAD)
KINDS = (*HOST_KINDS, *PAIR_KINDS, BAD_LEAF, BAD_UPLINK, BAD_RAIL)

# A slow part has this share of its speed: from badly broken to just below what anybody would call healthy.
SPEED_LEAST, SPEED_MOST = 0.3, 0.88
# Mean time between two dips of a flapping link.
FLAP_S_LEAST, FLAP_S_MOST = 5.0, 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong."""

    kind: str
    hosts: tuple[str, ...] = ()  # one host, or both of a pair
    switch: str | None = None  # the leaf switch, or the fabric whose way out is bad
    rail: int | None = None
    speed: float = 1.0  # share of the healthy speed that is left
    every_s: float = 0.0  # mean time between dips, for what comes and goes

    @property
    def subjects(self) -> tuple[str, ...]:
        """What an attribution may name it by; any of these is right."""
        host = self.hosts[0] if self.hosts else ""
        if self.kind in PAIR_KINDS:
            a, b = sorted(self.hosts)
            return (f"link:{a}-{b}",)
        if self.kind == BAD_RAIL:
            return (f"rail:{self.rail}",)
        if self.kind == BAD_LEAF:
            return (f"switch:{self.switch}",)
        if self.kind == BAD_UPLINK:
            return (f"boundary:{self.switch}",)
        if self.kind in (SLOW_NIC, FLAPPING):
            return f"host:{host}", f"nic:{host}/{self.rail}"
        return (f"host:{host}",)


def draw_faults(topology: Topology, *, share: float, kinds: Sequence[str], seed: int) -> list[Fault]:
    """Return faults of each kind in a share of the parts of its kind, at least one; no host has two."""
    rng = random.Random(f"{seed} faults")
    free = list(topology.hosts)
    rng.shuffle(free)
    faults: list[Fault] = []
    for kind in kinds:
        faults += _draw(kind, topology, share, free, rng)
    return faults


def _draw(kind: str, topology: Topology, share: float, free: list[str], rng: random.Random) -> list[Fault]:
    if kind in HOST_KINDS:
        return [
            _host_fault(kind, topology, free.pop(), rng) for _ in range(_count(topology.hosts, share, free))
        ]
    if kind in PAIR_KINDS:
        count = min(_count(topology.hosts, share, free), len(free) // 2)
        return [fault for _ in range(count) if (fault := _pair_fault(kind, topology, free, rng)) is not None]
    if kind == BAD_RAIL:
        rail = rng.randrange(max(1, topology.rails_count))
        return [Fault(kind=kind, rail=rail, speed=_speed(rng))] if topology.rails_count > 1 else []
    fabrics = sorted(topology.fabric_members())
    if kind == BAD_UPLINK:
        chosen = rng.sample(fabrics, min(len(fabrics), max(1, round(share * len(fabrics)))))
        return [Fault(kind=kind, switch=fabric, speed=_speed(rng)) for fabric in chosen]
    return _leaf_faults(topology, share, rng)


def _leaf_faults(topology: Topology, share: float, rng: random.Random) -> list[Fault]:
    """Return bad leaf switches; at most one among those of the same hosts."""
    members = topology.fabric_members()
    leaves = [
        (fabric, name, rail)
        for fabric, hosts in sorted(members.items())
        for rail, name in enumerate(topology.rails.get(hosts[0], (fabric,)))
    ]
    rng.shuffle(leaves)
    chosen = {fabric: (name, rail) for fabric, name, rail in leaves[: max(1, round(share * len(leaves)))]}
    return [Fault(kind=BAD_LEAF, switch=name, rail=rail, speed=_speed(rng)) for name, rail in chosen.values()]


def _count(parts: Sequence[str], share: float, free: Sequence[str]) -> int:
    return min(len(free), max(1, round(share * len(parts))))


def _host_fault(kind: str, topology: Topology, host: str, rng: random.Random) -> Fault:
    rail = rng.randrange(max(1, topology.rails_count))
    if kind == FLAPPING:
        spread = rng.uniform(0, 1)
        every_s = FLAP_S_LEAST * (FLAP_S_MOST / FLAP_S_LEAST) ** spread
        return Fault(kind=kind, hosts=(host,), rail=rail, speed=rng.uniform(0.05, 0.5), every_s=every_s)
    if kind in (SLOW_GPU, SLOW_NIC):
        return Fault(kind=kind, hosts=(host,), rail=rail, speed=_speed(rng))
    return Fault(kind=kind, hosts=(host,))


def _pair_fault(kind: str, topology: Topology, free: list[str], rng: random.Random) -> Fault | None:
    """Return a fault between two hosts; half of them stand in one domain, half in different ones."""
    first = free.pop()
    is_near = rng.random() < 0.5
    for index in range(len(free) - 1, -1, -1):
        if (topology.fabric.get(free[index]) == topology.fabric.get(first)) == is_near:
            speed = _speed(rng) if kind == PAIR_SLOW else 0.0
            return Fault(kind=kind, hosts=(first, free.pop(index)), speed=speed)
    return None


def _speed(rng: random.Random) -> float:
    return rng.uniform(SPEED_LEAST, SPEED_MOST)

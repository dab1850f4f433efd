"""Which hosts belong together: those that share a switch, an NVLink domain or a rack, as far as is known."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from burnin.fleet.host import Fleet, Host

GROUP_MAX = 64  # a domain with more hosts is screened in parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What the network stage knows of a fleet; every mapping is by name of host."""

    hosts: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]  # who is screened together; together they are all hosts
    nvlink_domain: dict[str, str]
    fabric: dict[str, str]  # hosts behind the same leaf switches, by the names of those
    rails: dict[str, tuple[str, ...]]  # the leaf switch of each rail
    model: dict[str, str]  # of the GPUs, where it is known
    rails_count: int  # 0: unknown

    def fabric_members(self) -> dict[str, tuple[str, ...]]:
        """Return the hosts behind each set of leaf switches."""
        return _by_name((self.fabric[name], name) for name in self.hosts if name in self.fabric)

    def domain_members(self) -> dict[str, tuple[str, ...]]:
        """Return the hosts of each NVLink domain."""
        return _by_name((self.nvlink_domain[name], name) for name in self.hosts if name in self.nvlink_domain)


def topology_of(fleet: Fleet, able_hosts: Iterable[str], *, seed: int) -> Topology:
    """Return where the hosts stand that can take part.

    Hosts of which nothing is known are grouped by lot: neighbours by name often share a switch that nobody
    wrote down, and a bad switch would look like a group of bad nodes.
    """
    able = set(able_hosts)
    hosts = [host for host in fleet.hosts if host.name in able]
    fabric = {host.name: key for host in hosts if (key := _fabric_of(host)) is not None}
    return Topology(
        hosts=tuple(host.name for host in hosts),
        groups=_groups(hosts, random.Random(f"{seed} groups")),
        nvlink_domain={h.name: h.place.nvlink_domain for h in hosts if h.place.nvlink_domain is not None},
        fabric=fabric,
        rails={host.name: host.place.rails for host in hosts if host.place.rails},
        model={host.name: host.expected.model for host in hosts if host.expected.model is not None},
        rails_count=min((_rails_of(host) for host in hosts), default=0),
    )


def _fabric_of(host: Host) -> str | None:
    return "+".join(host.place.rails) or host.place.switch


def _rails_of(host: Host) -> int:
    return len(host.place.rails) or host.expected.nics or 0


def _domain_of(host: Host) -> tuple[str, str] | None:
    """Return kind and name of the smallest domain that is worth a trial of its own."""
    if host.place.nvlink_domain is not None:
        return "nvlink", host.place.nvlink_domain
    fabric = _fabric_of(host)
    if fabric is not None:
        return "fabric", fabric
    return ("rack", host.place.rack) if host.place.rack is not None else None


def _groups(hosts: Sequence[Host], rng: random.Random) -> tuple[tuple[str, ...], ...]:
    domains: dict[tuple[str, str], list[str]] = {}
    unknown: list[str] = []
    for host in hosts:
        domain = _domain_of(host)
        (unknown if domain is None else domains.setdefault(domain, [])).append(host.name)
    unknown += [names[0] for names in domains.values() if len(names) == 1]
    groups = [names for names in domains.values() if len(names) > 1]
    parts = [part for names in groups for part in deal(names, size=GROUP_MAX, rng=rng)]
    if unknown:
        parts += deal(unknown, size=max(2, math.ceil(math.sqrt(len(unknown)))), rng=rng)
    return tuple(parts)


def deal(names: Sequence[str], *, size: int, rng: random.Random) -> list[tuple[str, ...]]:
    """Return the names in groups of about equal size, at most ``size`` and at least two, by lot."""
    count = max(1, min(math.ceil(len(names) / size), len(names) // 2))
    drawn = list(names)
    rng.shuffle(drawn)
    return [tuple(drawn[index::count]) for index in range(count)]


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for key, name in pairs:
        found.setdefault(key, []).append(name)
    return {key: tuple(names) for key, names in found.items()}

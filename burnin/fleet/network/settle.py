"""Brings every host, and every way out of a fabric, to a decision: shown to be well, or accused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from burnin.fleet.network.designs import Group, match
from burnin.fleet.network.part import LEAF, NIC_SIDE, NVLINK_SIDE, OUTWARD, Part
from burnin.fleet.network.search import Plan, Search
from burnin.fleet.network.solver import Evidence, tolerance
from burnin.fleet.network.trial import FULL, NO_NVLINK

ATTEMPTS_MAX = 7  # trials of two with one host, before it is left as suspected
OUTWARD_ATTEMPTS_MAX = 6


def settle_hosts(search: Search) -> None:
    """Test hosts that no good trial has cleared in pairs, until each is cleared or accused.

    All in parallel: pairs of suspects first, which clears most of a sick group at once, then each suspect
    that is left with healthy partners that it has not met.
    """
    for kind in (NVLINK_SIDE, NIC_SIDE):
        for _ in range(ATTEMPTS_MAX + 1):
            plans = _host_plans(search, kind)
            if not plans or not search.has_room():
                break
            search.run(plans)


def unsettled(evidence: Evidence, search: Search, kind: str) -> list[str]:
    """Return the hosts of which one side is neither well nor accused nor hidden behind something accused."""
    hosts = search.topology.hosts
    if kind == NVLINK_SIDE:
        hosts = tuple(host for host in hosts if Part(kind, host) in evidence.tried)
    return [
        host
        for host in hosts
        if not evidence.is_good(Part(kind, host))
        and Part(kind, host) not in evidence.accused
        and not is_behind(evidence, search, Part(kind, host))
    ]


def is_behind(evidence: Evidence, search: Search, part: Part) -> bool:
    """Say whether all that is wrong with a host is explained by the switch that it hangs on."""
    leaf = Part(LEAF, search.topology.fabric.get(part.name, ""))
    level = evidence.shared.get(leaf)
    return (
        part.kind == NIC_SIDE
        and level is not None
        and evidence.upper.get(part, 0) <= level + tolerance(level)
    )


def met_in_pairs(evidence: Evidence, part: Part) -> dict[str, int]:
    """Return the partners of a host in trials of two, and how often."""
    met: dict[str, int] = {}
    for reading in evidence.ran.get(part, ()):
        if len(reading.hosts) == 2:
            other = next(host for host in reading.hosts if host != part.name)
            met[other] = met.get(other, 0) + 1
    return met


def _host_plans(search: Search, kind: str) -> list[Plan]:
    evidence = search.evidence()
    met = {host: met_in_pairs(evidence, Part(kind, host)) for host in unsettled(evidence, search, kind)}
    wanting = [host for host in met if len(met[host]) < ATTEMPTS_MAX]
    search.rng(f"settle {kind}").shuffle(wanting)
    well = [host for host in search.topology.hosts if evidence.is_good(Part(kind, host))]
    well = [host for host in well if Part(kind, host) not in evidence.accused]
    search.rng(f"partners {kind}").shuffle(well)
    taken: set[str] = set()

    fabric = search.topology.fabric

    def knows(a: str, b: str) -> bool:
        ends = {fabric.get(a, ""), fabric.get(b, "")}
        is_shut = len(ends) > 1 and any(Part(OUTWARD, end) in evidence.shared for end in ends)
        return b in met.get(a, ()) or a in met.get(b, ()) or is_shut

    near, peers = _by_domain(search, kind, well), _by_domain(search, kind, wanting)
    fresh = [host for host in wanting if not met[host]]
    # Those who come fresh from a sick group meet each other; a healthy partner goes to those who met one
    # already.
    pairs = match(fresh, lambda h: [p for p in peers(h) if not met[p]], met=knows, taken=taken)
    confirms: list[Group] = []
    for partners in (near, lambda _: well, peers):
        if partners is not near and kind == NVLINK_SIDE:
            continue
        confirms += match(wanting, partners, met=knows, taken=taken)
    design = [("tournament", pair) for pair in pairs] + [("confirm", pair) for pair in confirms]
    return [Plan(design=name, hosts=pair, path=path_for(search, kind, pair)) for name, pair in design]


def may_meet(search: Search, evidence: Evidence, a: str, b: str) -> bool:
    """Say whether a trial of two hosts would run through nothing shared that is accused already."""
    fabric = search.topology.fabric
    ends = {fabric.get(a, ""), fabric.get(b, "")}
    if any(Part(LEAF, end) in evidence.shared for end in ends):
        return False
    return len(ends) == 1 or not any(Part(OUTWARD, end) in evidence.shared for end in ends)


class _by_domain:
    """Looks up who shares a domain with a host, out of some names."""

    def __init__(self, search: Search, kind: str, names: Sequence[str]) -> None:
        topology = search.topology
        self._place = topology.nvlink_domain if kind == NVLINK_SIDE else topology.fabric
        self._members: dict[str, list[str]] = {}
        for name in names:
            self._members.setdefault(self._place.get(name, ""), []).append(name)

    def __call__(self, host: str) -> Sequence[str]:
        return self._members.get(self._place.get(host, ""), [])


def path_for(search: Search, kind: str, pair: Sequence[str]) -> str:
    """Return the path on which a trial of two tests this side of its hosts."""
    domains = {search.topology.nvlink_domain.get(host) for host in pair}
    return NO_NVLINK if kind == NIC_SIDE and len(domains) == 1 and None not in domains else FULL


def settle_ways_out(search: Search) -> None:
    """Test pairs of fabrics, by one healthy host of each, until each way out is cleared or accused."""
    for _ in range(OUTWARD_ATTEMPTS_MAX + 1):
        plans = list(_outward_plans(search))
        if not plans or not search.has_room():
            return
        search.run(plans)


def _outward_plans(search: Search) -> Iterator[Plan]:
    evidence = search.evidence()
    speakers = _speakers(search, evidence)
    met = {name: _fabrics_met(search, evidence, name) for name in speakers}
    wanting = [
        name
        for name in speakers
        if Part(OUTWARD, name) in evidence.tried
        and not evidence.is_good(Part(OUTWARD, name))
        and Part(OUTWARD, name) not in evidence.shared
        and len(met[name]) < OUTWARD_ATTEMPTS_MAX
    ]
    well = [name for name in speakers if evidence.is_good(Part(OUTWARD, name))]
    search.rng("ways out").shuffle(wanting)
    search.rng("ways out, partners").shuffle(well)
    taken: set[str] = set()

    def knows(a: str, b: str) -> bool:
        return b in met[a] or a in met[b]

    pairs = match(wanting, lambda _: well, met=knows, taken=taken)
    pairs += match(wanting, lambda _: wanting, met=knows, taken=taken)
    for a, b in pairs:
        yield Plan(design="boundary", hosts=(speakers[a], speakers[b]))


def _speakers(search: Search, evidence: Evidence) -> dict[str, str]:
    """Return for each fabric a host that is known to be well, another one each time."""
    found: dict[str, str] = {}
    for name, members in sorted(search.topology.fabric_members().items()):
        well = [
            host
            for host in members
            if evidence.is_good(Part(NIC_SIDE, host)) and Part(NIC_SIDE, host) not in evidence.accused
        ]
        if well:
            found[name] = search.rng(f"speaker {name}").choice(well)
    return found


def _fabrics_met(search: Search, evidence: Evidence, name: str) -> set[str]:
    met: set[str] = set()
    for reading in evidence.ran.get(Part(OUTWARD, name), ()):
        if len(reading.hosts) == 2:
            met |= {search.topology.fabric[host] for host in reading.hosts}
    return met - {name}

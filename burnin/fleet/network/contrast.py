"""What of an accused part is bad: the same trial with one path off, inside the host or on some rails only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.part import LEAF, NIC_SIDE, NVLINK_SIDE, Part
from burnin.fleet.network.reading import LEVEL, Reading
from burnin.fleet.network.search import Plan, Search
from burnin.fleet.network.solver import Evidence, tolerance
from burnin.fleet.network.trial import RAIL

SLOWEST = min(LEVEL.values())  # what lies above is no slowness
RAILS_MAX = 64


@dataclass(slots=True)
class Contrasts:
    """What the trials with one path off said."""

    inside: dict[str, Reading] = field(default_factory=dict)  # host alone, without any network
    rail: dict[Part, int] = field(default_factory=dict)  # the rail that is bad
    evidence: dict[Part, list[Reading]] = field(default_factory=dict)
    rails: dict[int, list[Reading]] = field(default_factory=dict)  # bad in the whole fleet


def contrast(search: Search) -> Contrasts:
    """Test what is accused of slowness with one path off at a time."""
    found = Contrasts()
    _alone(search, found)
    _halve_rails(search, found)
    return found


def _slow_parts(evidence: Evidence) -> list[Part]:
    parts = [(part, level) for part, level in evidence.accused.items() if part.kind == NIC_SIDE]
    shared = [(part, level) for part, level in evidence.shared.items() if part.kind == LEAF]
    return sorted(part for part, level in (*parts, *shared) if level < SLOWEST)


def _alone(search: Search, found: Contrasts) -> None:
    evidence = search.evidence()
    hosts = sorted(
        {
            p.name
            for p, level in evidence.accused.items()
            if p.kind in (NIC_SIDE, NVLINK_SIDE) and level < SLOWEST
        }
    )
    if not hosts or not search.has_room():
        return
    readings = search.run([Plan(design="contrast", hosts=(host,)) for host in hosts])
    found.inside = {hosts[index]: reading for index, reading in readings.items() if reading.level is not None}


def _halve_rails(search: Search, found: Contrasts) -> None:
    """Halve the rails of all suspects in parallel until one is left of each; then test that one by itself."""
    count = len(search.rails)
    if not 1 < count <= RAILS_MAX:
        return
    left = {
        part: list(search.rails)
        for part in _slow_parts(search.evidence())
        if not (part.name in found.inside and found.inside[part.name].is_bad)
    }
    shown: dict[Part, bool] = dict.fromkeys(left, False)
    evidence = search.evidence()
    levels = {**evidence.accused, **evidence.shared}
    # A partner may be slow as well, for a reason that the suspect hides.
    least = {part: levels[part] - tolerance(levels[part]) for part in left}
    for _ in range(count.bit_length() + 1):
        open_parts = [part for part in left if not shown[part]]
        halves = {part: left[part][: (len(left[part]) + 1) // 2] for part in open_parts}
        wanted = [(p, plan) for p in open_parts for plan in _rail_plans(search, p, halves[p])]
        if not wanted or not search.has_room():
            break
        readings = search.run([plan for _, plan in wanted])
        for part in open_parts:
            own = [readings.get(index) for index, (p, _) in enumerate(wanted) if p == part]
            told = [reading for reading in own if reading is not None and reading.level is not None]
            if told:
                _narrow(left, shown, part, halves[part], told, found, least[part])
            else:
                del left[part]
    found.rail = {part: rails[0] for part, rails in left.items() if shown[part]}


def _narrow(
    left: dict[Part, list[int]],
    shown: dict[Part, bool],
    part: Part,
    half: Sequence[int],
    told: Sequence[Reading],
    found: Contrasts,
    least: float,
) -> None:
    if all(reading.is_bad and (reading.level or 0) >= least for reading in told):
        found.evidence.setdefault(part, []).extend(told)
        left[part] = list(half)
        shown[part] = len(half) == 1
    elif len(left[part]) == 1:  # the last one is well by itself: it is not one rail
        del left[part]
    else:
        left[part] = [rail for rail in left[part] if rail not in half]


def _rail_plans(search: Search, part: Part, half: Sequence[int]) -> list[Plan]:
    path = RAIL + ",".join(str(rail) for rail in half)
    return [Plan(design="rail", hosts=hosts, path=path) for hosts in _pairs_for(search, part)]


def _pairs_for(search: Search, part: Part) -> list[tuple[str, ...]]:
    """Return a suspect with a healthy partner, or two pairs behind a suspected switch.

    Two, because the switch hides what else is slow there: both must be bad.
    """
    evidence = search.evidence()
    rng = search.rng(f"rails of {part}")
    fabric = search.topology.fabric
    if part.kind == LEAF:
        members = [
            host
            for host in search.topology.fabric_members()[part.name]
            if Part(NIC_SIDE, host) not in evidence.accused
        ]
        drawn = rng.sample(members, min(4, len(members) // 2 * 2))
        return [tuple(drawn[index : index + 2]) for index in range(0, len(drawn), 2)]
    well = [
        host
        for host in search.topology.hosts
        if evidence.is_good(Part(NIC_SIDE, host)) and Part(NIC_SIDE, host) not in evidence.accused
    ]
    near = [host for host in well if fabric.get(host) == fabric.get(part.name)]
    choice = near or well
    return [(part.name, rng.choice(choice))] if choice else []


def screen_rails(search: Search, found: Contrasts) -> None:
    """Compare the rails of the whole fleet with each other.

    One that is slow everywhere slows every trial, and no comparison of hosts can show it.
    """
    count = search.topology.rails_count
    if not 1 < count <= RAILS_MAX:
        return
    suspects = _slow_rails(search, list(range(count)), found, least=3)
    if suspects and search.has_room():
        again = _slow_rails(search, list(range(count)), found, least=3)
        suspects &= again
    found.rails = {rail: readings for rail, readings in found.rails.items() if rail in suspects}


def _slow_rails(search: Search, rails: Sequence[int], found: Contrasts, *, least: int) -> set[int]:
    evidence = search.evidence()
    hosts = [h for h in search.topology.hosts if evidence.is_good(Part(NIC_SIDE, h))]
    search.rng("rails").shuffle(hosts)
    by_fabric: dict[str, list[str]] = {}
    for host in hosts:
        by_fabric.setdefault(search.topology.fabric.get(host, ""), []).append(host)
    pairs = [pair for names in by_fabric.values() for pair in zip(names[::2], names[1::2], strict=False)]
    plans = [
        Plan(design="rail", hosts=pair, path=f"{RAIL}{rails[index % len(rails)]}")
        for index, pair in enumerate(pairs)
    ]
    if len(plans) < least * len(rails) or not search.has_room():
        return set()
    by_rail: dict[int, list[Reading]] = {}
    for index, reading in search.run(plans).items():
        by_rail.setdefault(rails[index % len(rails)], []).append(reading)
    slow = {
        rail
        for rail, readings in by_rail.items()
        if len(readings) >= least and sum(r.is_bad for r in readings) > len(readings) / 2
    }
    for rail in slow:
        found.rails.setdefault(rail, []).extend(r for r in by_rail[rail] if r.is_bad)
    return slow

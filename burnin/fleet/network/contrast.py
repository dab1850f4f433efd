"""What of an accused part is bad: the same trial with one path off, inside the host or on some rails only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.part import LEAF, NIC_SIDE, NVLINK_SIDE, Part
from burnin.fleet.network.reading import LEVEL, Reading
from burnin.fleet.network.search import Plan, Search
from burnin.fleet.network.solver import Evidence
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
    count = search.topology.rails_count
    if not 1 < count <= RAILS_MAX:
        return
    left = {
        part: list(range(count))
        for part in _slow_parts(search.evidence())
        if not (part.name in found.inside and found.inside[part.name].is_bad)
    }
    shown: dict[Part, bool] = dict.fromkeys(left, False)
    for _ in range(count.bit_length() + 1):
        plans = [(part, *_rail_plan(search, part, rails)) for part, rails in left.items() if not shown[part]]
        wanted = [(part, half, plan) for part, half, plan in plans if plan is not None]
        if not wanted or not search.has_room():
            break
        readings = search.run([plan for _, _, plan in wanted])
        for index, (part, half, _) in enumerate(wanted):
            reading = readings.get(index)
            if reading is None or reading.level is None:
                del left[part]
                continue
            _narrow(left, shown, part, half, reading, found)
    found.rail = {part: rails[0] for part, rails in left.items() if shown[part]}


def _narrow(
    left: dict[Part, list[int]],
    shown: dict[Part, bool],
    part: Part,
    half: Sequence[int],
    reading: Reading,
    found: Contrasts,
) -> None:
    if reading.is_bad:
        found.evidence.setdefault(part, []).append(reading)
        left[part] = list(half)
        shown[part] = len(half) == 1
    elif len(left[part]) == 1:  # the last one is well by itself: it is not one rail
        del left[part]
    else:
        left[part] = [rail for rail in left[part] if rail not in half]


def _rail_plan(search: Search, part: Part, rails: Sequence[int]) -> tuple[list[int], Plan | None]:
    half = list(rails[: (len(rails) + 1) // 2])
    hosts = _pair_for(search, part)
    path = RAIL + ",".join(str(rail) for rail in half)
    return half, Plan(design="rail", hosts=hosts, path=path) if hosts else None


def _pair_for(search: Search, part: Part) -> tuple[str, ...]:
    """Return a suspect with a healthy partner, or two hosts behind a suspected switch."""
    evidence = search.evidence()
    rng = search.rng(f"rails of {part}")
    fabric = search.topology.fabric
    if part.kind == LEAF:
        members = [
            host
            for host in search.topology.fabric_members()[part.name]
            if Part(NIC_SIDE, host) not in evidence.accused
        ]
        return tuple(rng.sample(members, 2)) if len(members) > 1 else ()
    well = [
        host
        for host in search.topology.hosts
        if evidence.is_good(Part(NIC_SIDE, host)) and Part(NIC_SIDE, host) not in evidence.accused
    ]
    near = [host for host in well if fabric.get(host) == fabric.get(part.name)]
    choice = near or well
    return (part.name, rng.choice(choice)) if choice else ()


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

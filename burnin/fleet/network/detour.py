"""Inquiries over fewer rails: what a bad switch hides is tested with its rail off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from burnin.fleet.host import Fleet
from burnin.fleet.network.inquiry import Inquiry
from burnin.fleet.network.pair_search import PairFindings
from burnin.fleet.network.part import LEAF, NIC_SIDE, Part
from burnin.fleet.network.search import Search
from burnin.fleet.topology import topology_of

COMPARED_WITH = 4  # groups of hosts that are well, to compare those with that are in question
RAILS_LEFT_MIN = 0.5  # of all, so that a detour still says something


@dataclass(frozen=True, slots=True, kw_only=True)
class Detour:
    """Hosts that are to be tested with some rails off."""

    off: frozenset[int]
    fabrics: tuple[str, ...]


def detours_of(inquiry: Inquiry) -> list[Detour]:
    """Return what has to be tested over other rails than an inquiry used."""
    search, evidence = inquiry.search, inquiry.search.evidence()
    by_off: dict[frozenset[int], list[str]] = {}
    for part in sorted(evidence.shared):
        rail = inquiry.contrasts.rail.get(part) if part.kind == LEAF else None
        if rail is not None and _leaves_enough(search, off := search.off | {rail}):
            by_off.setdefault(off, []).append(part.name)
    return [Detour(off=off, fabrics=tuple(names)) for off, names in by_off.items()]


def _leaves_enough(search: Search, off: frozenset[int]) -> bool:
    return search.topology.rails_count - len(off) >= max(1, RAILS_LEFT_MIN * search.topology.rails_count)


def begin_detour(fleet: Fleet, detour: Detour, inquiries: Sequence[Inquiry], *, rounds_max: int) -> Inquiry:
    """Begin with the hosts in question, beside some that are known to be well."""
    main = inquiries[0]
    members = main.search.topology.fabric_members()
    accused = [inquiry for inquiry in inquiries if inquiry is main or inquiry.search.off < detour.off]
    hosts = [
        host
        for fabric in detour.fabrics
        for host in members[fabric]
        if not any(inquiry.is_accused(host) for inquiry in accused)
    ]
    well = main.testable()
    bad = {part.name for part in main.search.evidence().shared}
    others = [well & set(names) for fabric, names in sorted(members.items()) if fabric not in bad]
    main.search.rng(f"detour {sorted(detour.off)}").shuffle(others)
    compared = sorted(set().union(*sorted(others, key=lambda names: -len(names))[:COMPARED_WITH]))
    given = {part: level for part, level in main.good_parts().items() if part.name not in detour.fabrics}
    given = {part: level for part, level in given.items() if part.name not in set(hosts)}
    return _begin(fleet, inquiries, (*hosts, *compared), detour.off, given, rounds_max)


def begin_joint_detour(
    fleet: Fleet, inquiries: Sequence[Inquiry], *, rounds_max: int
) -> tuple[Inquiry, set[str]] | None:
    """Begin with all hosts that can meet, over the rails that all have; with those that had not all before.

    Rails are left out as long as enough are left; who needs more of them off stays out of it.
    """
    main = inquiries[0].search
    off: frozenset[int] = frozenset()
    able, detoured, given = inquiries[0].testable(), set[str](), inquiries[0].good_parts()
    for inquiry in inquiries[1:]:
        if not inquiry.search.off or not _leaves_enough(main, off | inquiry.search.off):
            continue
        found = inquiry.testable() - able
        if found:
            off |= inquiry.search.off
            detoured |= found
            given = {**inquiry.good_parts(), **given}
    if not detoured:
        return None
    able = {host for host in able | detoured if not any(inquiry.is_accused(host) for inquiry in inquiries)}
    return _begin(fleet, inquiries, able, off, given, rounds_max), detoured


def _begin(
    fleet: Fleet,
    inquiries: Sequence[Inquiry],
    hosts: Iterable[str],
    off: frozenset[int],
    given: Mapping[Part, float],
    rounds_max: int,
) -> Inquiry:
    before = inquiries[-1].search
    topology = topology_of(fleet, hosts, seed=before.seed)
    taking_part = {*topology.hosts, *topology.fabric.values(), *topology.nvlink_domain.values()}
    search = Search(
        topology=topology,
        run_round=before.run_round,
        seed=before.seed,
        limits=before.limits,
        rounds_max=rounds_max,
        recorded=before.recorded,
        off=off,
        given={part: level for part, level in given.items() if part.name in taking_part},
        rounds=before.rounds,
        node_seconds=before.node_seconds,
    )
    # Bad pairs that are known are kept apart; to find them again would take rounds.
    known = {pair: found for inquiry in inquiries for pair, found in inquiry.pairs.accused.items()}
    return Inquiry(search, pairs=PairFindings(accused=known))


def hidden_adapters(inquiries: Sequence[Inquiry]) -> Iterator[tuple[str, int]]:
    """Yield host and rail of each adapter that a bad switch hides, of hosts that are well without it."""
    for inquiry in inquiries:
        topology = inquiry.search.topology
        for detour in detours_of(inquiry):
            later = [i for i in inquiries if detour.off <= i.search.off]
            for host in (h for fabric in detour.fabrics for h in topology.fabric_members()[fabric]):
                if any(i.has_shown_well(host) for i in later):
                    for rail in sorted(detour.off - inquiry.search.off):
                        yield host, rail


def is_well_without(inquiries: Sequence[Inquiry], host: str) -> bool:
    """Say whether a host is well over the rails that no bad switch spoils."""
    return any(inquiry.search.evidence().is_good(Part(NIC_SIDE, host)) for inquiry in inquiries[1:])

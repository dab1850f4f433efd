"""The network stage: cheap for a healthy fleet, sharp for a sick one.

Hosts that share a domain exchange data first, all domains side by side; then groups with one host of each
domain. What is well is done after that. Only suspicion brings more rounds: pairs, confirmation with other
partners, bisection across boundaries, retests of what did not recur, and paths switched off one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from burnin.fleet.host import Fleet
from burnin.fleet.network.attribution import NetworkOutcome
from burnin.fleet.network.conclusion import conclude
from burnin.fleet.network.contrast import Contrasts, contrast, screen_rails
from burnin.fleet.network.designs import Group, across, cover
from burnin.fleet.network.intermittent import Retested, retest
from burnin.fleet.network.pair_search import PairFindings, search_pairs
from burnin.fleet.network.part import LEAF, NIC_SIDE, NVLINK_SIDE, OUTWARD, Part
from burnin.fleet.network.reading import Reading
from burnin.fleet.network.search import Limits, Plan, Search
from burnin.fleet.network.settle import settle_hosts, settle_ways_out
from burnin.fleet.network.trial import FULL, NO_NVLINK, RoundRunner, TrialResult
from burnin.fleet.topology import topology_of

GROUP_REPEATS_MAX = 3
CONTRAST_ROUNDS = 16
COVER_ROUNDS = 8  # of a tournament, before what they showed is looked into


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How far the network stage goes without any suspicion."""

    passes: int  # of the screening
    has_all_across: bool  # every host meets other domains, or one of each domain only
    has_rails: bool  # rails of the whole fleet are compared
    has_cover: bool  # every two hosts meet in some group
    retest_rounds: int  # in pairs, for what did not recur
    confirmations: int  # of each suspect, at least, before it is let go
    rounds_max: int
    length_s: float  # of each size of each collective: what comes and goes needs time to show


DEPTHS = {
    "gate": Depth(
        passes=1,
        has_all_across=False,
        has_rails=False,
        has_cover=False,
        retest_rounds=2,
        confirmations=3,
        rounds_max=40,
        length_s=0.25,
    ),
    "quick": Depth(
        passes=1,
        has_all_across=False,
        has_rails=False,
        has_cover=False,
        retest_rounds=3,
        confirmations=5,
        rounds_max=60,
        length_s=0.5,
    ),
    "intake": Depth(
        passes=2,
        has_all_across=True,
        has_rails=True,
        has_cover=False,
        retest_rounds=5,
        confirmations=8,
        rounds_max=150,
        length_s=2.5,
    ),
    "soak": Depth(
        passes=12,
        has_all_across=True,
        has_rails=True,
        has_cover=True,
        retest_rounds=8,
        confirmations=12,
        rounds_max=1500,
        length_s=2.5,
    ),
}


@dataclass(slots=True)
class Found:
    """What the steps of the isolation hand to each other."""

    pairs: PairFindings = field(default_factory=PairFindings)
    retested: Retested = field(default_factory=Retested)
    contrasts: Contrasts = field(default_factory=Contrasts)


def isolate(
    fleet: Fleet,
    run_round: RoundRunner,
    *,
    profile: str,
    seed: int,
    able_hosts: Iterable[str],
    limits: Limits | None = None,
    recorded: Mapping[str, TrialResult] | None = None,
) -> NetworkOutcome:
    """Find out which part of the network is bad.

    ``able_hosts`` can take part; the others of the fleet are untested. ``recorded`` are results of a run
    that was cut off, by id of trial: with the same fleet, seed and profile they are taken instead of
    running a trial anew.
    """
    depth, limits = DEPTHS[profile], limits or Limits()
    topology = topology_of(fleet, able_hosts, seed=seed)
    search = Search(
        topology=topology,
        run_round=run_round,
        seed=seed,
        limits=limits,
        rounds_max=limits.rounds_max or depth.rounds_max,
        recorded=recorded or {},
    )
    found = Found()
    if len(topology.hosts) > 1:
        for number in range(depth.passes):
            _screen(search, depth, found, number)
        if depth.has_rails:
            screen_rails(search, found.contrasts)
        if depth.has_cover:
            for number, groups in enumerate(cover(topology.groups)):
                _test_groups(search, found, "tournament", groups, FULL)
                if number % COVER_ROUNDS == COVER_ROUNDS - 1:
                    _resolve(search, depth, found)
            _resolve(search, depth, found)
        rails = found.contrasts.rails
        search.allow(CONTRAST_ROUNDS)
        found.contrasts = contrast(search)
        found.contrasts.rails = rails
    return conclude(fleet, search, found.pairs, found.retested, found.contrasts)


def _screen(search: Search, depth: Depth, found: Found, number: int) -> None:
    groups = search.topology.groups
    for path in (FULL, NO_NVLINK) if search.topology.nvlink_domain else (FULL,):
        wanted = groups if path == FULL else search.topology.domain_members().values()
        _test_groups(search, found, "domains", list(wanted), path)
    columns = across(groups, shift=number, rng=search.rng("across"))
    if not depth.has_all_across:
        columns = _one_of_each(search, columns)
    _test_groups(search, found, "across", columns, FULL)
    _resolve(search, depth, found)


def _one_of_each(search: Search, columns: Sequence[Group]) -> list[Group]:
    """Return so many of the groups that each domain is in one of them."""
    topology = search.topology
    place = {host: number for number, group in enumerate(topology.groups) for host in group}
    seen: set[int] = set()
    chosen: list[Group] = []
    for column in sorted(columns, key=len, reverse=True):
        domains = {place[host] for host in column}
        if not domains <= seen:
            seen |= domains
            chosen.append(column)
    return chosen


def _test_groups(search: Search, found: Found, design: str, groups: Sequence[Group], path: str) -> None:
    """Run groups; while one is not well, take out what is accused and run it again, then search within it."""
    last: dict[Group, Reading] = {}
    wanted = {group: clean for group in groups if len(clean := _without_accused(search, found, group)) > 1}
    for repeat in range(GROUP_REPEATS_MAX):
        if not wanted or not search.has_room():
            break
        order = list(wanted)
        plans = [
            Plan(design=design if repeat == 0 else "repeat", hosts=wanted[group], path=path)
            for group in order
        ]
        readings = search.run(plans)
        for index, group in enumerate(order):
            if index in readings:
                _note_repeat(found, last.get(group), readings[index])
                last[group] = readings[index]
        settle_hosts(search)
        settle_ways_out(search)
        wanted = _again(search, found, last)


def _resolve(search: Search, depth: Depth, found: Found) -> None:
    """Look into what is still bad: what only shows when hosts meet, then what comes and goes."""
    search_pairs(search, found.pairs)
    retest(
        search,
        found.pairs,
        found.retested,
        rounds=depth.retest_rounds,
        confirmations=depth.confirmations,
    )
    search_pairs(search, found.pairs)  # a retest may have met a bad pair


def _note_repeat(found: Found, before: Reading | None, now: Reading) -> None:
    if before is not None and before.is_bad and now.is_bad and now.hosts <= before.hosts:
        found.pairs.reproduced.add(now.result.trial.id)


def _again(search: Search, found: Found, last: Mapping[Group, Reading]) -> dict[Group, Group]:
    """Return the groups to run once more: bad or not comparable, not yet shown to be so twice."""
    current = {reading.result.trial.id: reading for reading in search.evidence().readings}
    wanted: dict[Group, Group] = {}
    for group, before in last.items():
        trial_id = before.result.trial.id
        reading = current[trial_id]  # judged anew: the reference may have moved
        clean = _without_accused(search, found, group)
        is_changed = set(clean) != set(reading.hosts)
        is_wanted = is_changed and reading.level is None
        if reading.is_bad:
            is_wanted = is_changed or trial_id not in found.pairs.reproduced
        if is_wanted and len(clean) > 1:
            wanted[group] = clean
    return wanted


def _without_accused(search: Search, found: Found, group: Sequence[str]) -> Group:
    """Return a group without what is accused or cannot be tested for what it hangs on."""
    evidence = search.evidence()
    fabric = search.topology.fabric
    bad_sides = {part.name for part in evidence.accused if part.kind in (NIC_SIDE, NVLINK_SIDE)}
    bad_leaves = {part.name for part in evidence.shared if part.kind == LEAF}
    bad_ways = {part.name for part in evidence.shared if part.kind == OUTWARD}
    fabrics = {fabric.get(host) for host in group}
    shut = bad_leaves | (bad_ways if len(fabrics) > 1 else set())
    # Of an accused pair one stays: together they would hide what else is bad in their group.
    apart = {b for a, b in found.pairs.accused if a in group and b in group}
    return tuple(
        host
        for host in group
        if host not in bad_sides
        and host not in found.retested.accused
        and host not in apart
        and fabric.get(host) not in shut
        and not _is_unsettled(search, host)
    )


def _is_unsettled(search: Search, host: str) -> bool:
    """Whether a host was tested and is neither well nor accused: it must not spoil its group again."""
    evidence = search.evidence()
    side = Part(NIC_SIDE, host)
    return side in evidence.tried and not evidence.is_good(side)

"""Groups exchange data; while one is not well, what is accused is taken out of it, and it is searched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from burnin.fleet.network.depth import Depth
from burnin.fleet.network.designs import Group, across
from burnin.fleet.network.inquiry import Inquiry
from burnin.fleet.network.intermittent import retest
from burnin.fleet.network.pair_search import search_pairs
from burnin.fleet.network.part import LEAF, NIC_SIDE, NVLINK_SIDE, OUTWARD
from burnin.fleet.network.reading import Reading
from burnin.fleet.network.search import Plan, Search
from burnin.fleet.network.settle import settle_hosts, settle_ways_out
from burnin.fleet.network.trial import FULL, NO_NVLINK

GROUP_REPEATS_MAX = 3


def screen(inquiry: Inquiry, depth: Depth, *, number: int) -> None:
    """Let hosts that share a domain exchange data, then groups with one host of each domain."""
    search = inquiry.search
    groups = search.topology.groups
    has_nvlink = bool(search.topology.nvlink_domain) and not search.off
    for path in (FULL, NO_NVLINK) if has_nvlink else (FULL,):
        wanted = groups if path == FULL else search.topology.domain_members().values()
        run_groups(inquiry, "domains", list(wanted), path=path)
    columns = across(groups, shift=number, rng=search.rng("across"))
    if not depth.has_all_across:
        columns = _one_of_each(search, columns)
    run_groups(inquiry, "across", columns)
    resolve(inquiry, depth)


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


def run_groups(
    inquiry: Inquiry, design: str, groups: Sequence[Group], *, path: str = FULL, goes_through: bool = False
) -> None:
    """Run groups; while one is not well, take out what is accused and run it again, then search within it.

    With ``goes_through`` hosts stay in whose way out of their fabric is accused: there shows what is worse.
    """
    search = inquiry.search
    last: dict[Group, Reading] = {}
    wanted = _cleaned(inquiry, groups, goes_through)
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
                _note_repeat(inquiry, last.get(group), readings[index])
                last[group] = readings[index]
        settle_hosts(search)
        settle_ways_out(search)
        wanted = _again(inquiry, last, goes_through)


def resolve(inquiry: Inquiry, depth: Depth) -> None:
    """Look into what is still bad: what only shows when hosts meet, then what comes and goes."""
    search_pairs(inquiry.search, inquiry.pairs)
    retest(
        inquiry.search,
        inquiry.pairs,
        inquiry.retested,
        rounds=depth.retest_rounds,
        confirmations=depth.confirmations,
    )
    search_pairs(inquiry.search, inquiry.pairs)  # a retest may have met a bad pair


def _note_repeat(inquiry: Inquiry, before: Reading | None, now: Reading) -> None:
    if before is None or not (before.is_bad and now.is_bad and now.hosts <= before.hosts):
        return
    if not inquiry.search.evidence().explains(now):  # as slow as what is accused makes it, and no more
        inquiry.pairs.reproduced.add(now.result.trial.id)


def _again(inquiry: Inquiry, last: Mapping[Group, Reading], goes_through: bool) -> dict[Group, Group]:
    """Return the groups to run once more: bad or not comparable, not yet shown to be so twice."""
    evidence = inquiry.search.evidence()
    current = {reading.result.trial.id: reading for reading in evidence.readings}
    cleaned = _cleaned(inquiry, last, goes_through)
    wanted: dict[Group, Group] = {}
    for group, before in last.items():
        trial_id = before.result.trial.id
        reading = current[trial_id]  # judged anew: the reference may have moved
        clean = cleaned.get(group, ())
        is_changed = set(clean) != set(reading.hosts)
        is_wanted = is_changed and reading.level is None
        if reading.is_bad:
            is_open = trial_id not in inquiry.pairs.reproduced and not evidence.explains(reading)
            is_wanted = is_changed or is_open
        if is_wanted and clean:
            wanted[group] = clean
    return wanted


def _cleaned(inquiry: Inquiry, groups: Iterable[Group], goes_through: bool) -> dict[Group, Group]:
    """Return groups without what is accused or cannot be tested for what it hangs on."""
    evidence, fabric = inquiry.search.evidence(), inquiry.search.topology.fabric
    out = {part.name for part in evidence.accused if part.kind in (NIC_SIDE, NVLINK_SIDE)}
    out |= set(inquiry.retested.accused)
    # A host that was tested and is neither well nor accused must not spoil its group again.
    out |= {p.name for p in evidence.tried if p.kind == NIC_SIDE and not evidence.is_good(p)}
    leaves = {part.name for part in evidence.shared if part.kind == LEAF}
    ways = {part.name for part in evidence.shared if part.kind == OUTWARD and not goes_through}
    found: dict[Group, Group] = {}
    for group in groups:
        members = set(group)
        # Of an accused pair one stays: together they would hide what else is bad in their group.
        apart = {b for a, b in inquiry.pairs.accused if a in members and b in members}
        shut = leaves | (ways if len({fabric.get(host) for host in group}) > 1 else set())
        clean = tuple(h for h in group if h not in out and h not in apart and fabric.get(h) not in shut)
        if len(clean) > 1:
            found[group] = clean
    return found

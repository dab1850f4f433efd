"""Lets pairs of hosts meet that no design brought together: one was left out, or hangs on a bad switch."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from burnin.fleet.network.coverage import gather, met_in
from burnin.fleet.network.depth import Depth
from burnin.fleet.network.inquiry import Inquiry
from burnin.fleet.network.meetings import Meetings, all_pairs
from burnin.fleet.network.part import LEAF, OUTWARD
from burnin.fleet.network.reading import Reading
from burnin.fleet.network.screening import resolve, run_groups
from burnin.fleet.network.solver import Evidence, tolerance

GROUP_HOSTS = 32
PASSES_MAX = 3  # hosts fall out of groups while what is bad in them is found
ROUNDS_MAX = 200  # in one pass
ROUNDS_UNRESOLVED = 8  # before what they showed is looked into


def make_up(inquiry: Inquiry, before: Sequence[Inquiry], depth: Depth, *, of: set[str] | None = None) -> None:
    """Let every two hosts meet that have not, as far as they can be tested; ``of``: one of them of these.

    Last come those whose way out is accused: they slow the groups that they are in, but not what is worse.
    """
    search = inquiry.search
    ways = {part.name for part in search.evidence().shared if part.kind == OUTWARD}
    for other in before:
        ways |= {part.name for part in other.search.evidence().shared if part.kind == OUTWARD}
    slowed = {host for host in search.topology.hosts if search.topology.fabric.get(host) in ways}
    for _ in range(PASSES_MAX):
        if not _pass(inquiry, before, depth, of, apart=slowed):
            break
    for _ in range(PASSES_MAX if slowed else 0):
        if not _pass(inquiry, before, depth, of, through=slowed):
            break


def _pass(
    inquiry: Inquiry,
    before: Sequence[Inquiry],
    depth: Depth,
    of: set[str] | None,
    *,
    apart: AbstractSet[str] = frozenset(),
    through: AbstractSet[str] = frozenset(),
) -> bool:
    """Let who is missing meet once; return whether anybody was."""
    able = inquiry.testable()
    names = [host for host in inquiry.search.topology.hosts if host in able - apart]
    missing = all_pairs(names, of=of).without(_done(names, [*before, inquiry]))
    if through:
        missing = all_pairs(names, of=through).both(missing)
    fillers = [name for name in names if name not in through]
    number = 0
    while number < ROUNDS_MAX and inquiry.search.has_room():
        groups = gather(missing, size=min(GROUP_HOSTS, max(2, len(names) // 4)), fillers=fillers)
        if not groups:
            break
        run_groups(inquiry, "tournament", groups, goes_through=bool(through))
        for group in groups:
            missing.strike(group)
        number += 1
        if number % ROUNDS_UNRESOLVED == 0:
            resolve(inquiry, depth)
    resolve(inquiry, depth)
    return number > 0


def _done(names: Sequence[str], inquiries: Sequence[Inquiry]) -> Meetings:
    """Return who met, also where something shared that is accused explains what came of it."""
    met = Meetings(names)
    for inquiry in inquiries:
        evidence = inquiry.search.evidence()
        met = met.either(met_in(names, evidence.readings, inquiry.pairs.accused))
        for reading in evidence.readings:
            if reading.is_main and reading.is_bad and _is_slowed_by_way(evidence, reading):
                met.add(reading.hosts)
    return met


def _is_slowed_by_way(evidence: Evidence, reading: Reading) -> bool:
    """Say whether an accused way out, and no switch of single rails, explains how slow a trial was."""
    shared = {part: level for part, level in evidence.shared.items() if part in reading.parts}
    level = reading.level or 0.0
    by_way = any(p.kind == OUTWARD and worst >= level - tolerance(level) for p, worst in shared.items())
    return by_way and not any(part.kind == LEAF for part in shared)

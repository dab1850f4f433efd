"""Finds what only shows when certain hosts meet: a group is bad, its hosts are well with others."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from burnin.fleet.network.designs import split
from burnin.fleet.network.part import NIC_SIDE, Part
from burnin.fleet.network.reading import SAME_LEVEL, Reading
from burnin.fleet.network.references import SLOW_FROM
from burnin.fleet.network.search import Plan, Search
from burnin.fleet.network.settle import may_meet
from burnin.fleet.network.solver import Evidence, tolerance

STEPS_MAX = 24
PAIR_REPEATS = 3  # a pair is accused when it was bad so often, never good, and both so often well with others

Pair = tuple[str, str]


@dataclass(slots=True)
class PairFindings:
    """What the search across boundaries found."""

    accused: dict[Pair, list[Reading]] = field(default_factory=dict)
    reproduced: set[str] = field(default_factory=set)  # ids of group trials that were bad twice
    once: set[str] = field(
        default_factory=set
    )  # ids of bad trials that nothing explains and that did not recur

    def explains(self, reading: Reading) -> bool:
        """Say whether an accused pair is as bad as a trial was."""
        assert reading.level is not None
        return any(
            set(pair) <= reading.hosts and (r.level or 0) >= reading.level - tolerance(reading.level)
            for pair, readings in self.accused.items()
            for r in readings
        )


def search_pairs(search: Search, found: PairFindings) -> None:
    """Bisect bad groups in parallel, across the boundary where both halves pass, down to pairs of hosts."""
    for _ in range(STEPS_MAX):
        plans = _next_plans(search, found)
        if not plans or not search.has_room():
            break
        search.run(plans)
    for reading in open_readings(search.evidence(), found):
        found.once.add(reading.result.trial.id)


def open_readings(evidence: Evidence, found: PairFindings) -> list[Reading]:
    """Return bad trials that recur or are of two hosts, which nothing explains so far, the smallest only."""
    unexplained = [
        reading
        for reading in evidence.readings
        if reading.is_bad
        and reading.is_main
        and len(reading.hosts) > 1
        and reading.result.trial.id not in found.once
        and (
            len(reading.hosts) == 2 or _is_from_search(reading) or reading.result.trial.id in found.reproduced
        )
        and _hosts_are_well(evidence, reading)
        and not evidence.explains(reading)
        and not found.explains(reading)
    ]
    unexplained.sort(key=lambda r: (len(r.hosts), r.result.trial.id))
    smallest: list[Reading] = []
    for reading in unexplained:
        if not any(small.hosts <= reading.hosts for small in smallest):
            smallest.append(reading)
    return smallest


def _is_from_search(reading: Reading) -> bool:
    return reading.result.trial.design == "bisection"


def _hosts_are_well(evidence: Evidence, reading: Reading) -> bool:
    """Say whether each part has done well elsewhere; else it is the hosts that are to be settled first.

    A way out that is accused is known: what is worse than that is something else.
    """
    return all(evidence.is_good(part) or part in evidence.shared for part in reading.parts)


def _next_plans(search: Search, found: PairFindings) -> list[Plan]:
    evidence = search.evidence()
    plans: list[Plan] = []
    for reading in open_readings(evidence, found):
        if len(reading.hosts) == 2:
            plans += _pair_plan(search, evidence, found, reading)
        else:
            plans += _split_plans(search, evidence, found, reading)
    return plans


def _pair_plan(search: Search, evidence: Evidence, found: PairFindings, reading: Reading) -> list[Plan]:
    """Repeat a bad pair, and each of the two with others; what comes and goes is no fault of the pair."""
    path = reading.result.trial.path
    same = [r for r in evidence.readings if r.hosts == reading.hosts and r.result.trial.path == path]
    with_others = {host: _pairs_with_others(evidence, host, reading.hosts) for host in sorted(reading.hosts)}
    # What comes and goes shows single iterations far below the rest; a bad pair is slow all the time.
    is_steady = all((r.is_bad and not r.dip) or r.level is None for r in same)
    is_steady = is_steady and _spread(same) <= 2 * SAME_LEVEL
    if not is_steady or not all(_do_well(trials) for trials in with_others.values()):
        found.once |= {r.result.trial.id for r in same if r.is_bad}
        return []
    bad = [r for r in same if r.is_bad]
    short = [host for host, trials in with_others.items() if len(trials) < PAIR_REPEATS]
    if len(bad) >= PAIR_REPEATS and not short:
        a, b = sorted(reading.hosts)
        found.accused[a, b] = bad
        return []
    if len(same) > 2 * PAIR_REPEATS:  # it could not be measured
        found.once.add(reading.result.trial.id)
        return []
    if len(bad) < PAIR_REPEATS:
        return [Plan(design="repeat", hosts=tuple(sorted(reading.hosts)), path=path)]
    return _others_plans(search, evidence, short, with_others, reading)


def _others_plans(
    search: Search,
    evidence: Evidence,
    short: list[str],
    with_others: dict[str, list[Reading]],
    reading: Reading,
) -> list[Plan]:
    """Return trials of each host of a pair with partners that are well and that it has not met."""
    fabric = search.topology.fabric
    taken = set(reading.hosts)
    plans: list[Plan] = []
    for host in short:
        met = {other for r in with_others[host] for other in r.hosts}
        well = [
            other
            for other in search.topology.hosts
            if other not in met | taken
            and evidence.is_good(Part(NIC_SIDE, other))
            and may_meet(search, evidence, host, other)
        ]
        near = [other for other in well if fabric.get(other) == fabric.get(host)] or well
        if near:
            partner = search.rng(f"others of {host}").choice(near)
            taken.add(partner)
            plans.append(Plan(design="confirm", hosts=(host, partner), path=reading.result.trial.path))
    return plans


def _pairs_with_others(evidence: Evidence, host: str, pair: frozenset[str]) -> list[Reading]:
    tried = evidence.tried.get(Part(NIC_SIDE, host), ())
    others = [r for r in tried if len(r.hosts) == 2 and r.hosts != pair and r.level is not None]
    return [r for r in others if not r.is_bad or not evidence.explains(r)]


def _do_well(trials: list[Reading]) -> bool:
    """Say whether a host does well with others: one bad meeting may be the fault of that other."""
    bad = sum(r.is_bad or r.dip for r in trials)
    return bad <= max(1, len(trials) // 4)


def _spread(readings: list[Reading]) -> float:
    levels = [r.level for r in readings if r.level is not None]
    return max(levels) - min(levels) if levels else 0.0


def _split_plans(search: Search, evidence: Evidence, found: PairFindings, reading: Reading) -> list[Plan]:
    doubtful = doubtful_pairs(evidence, found, reading)
    if not doubtful:
        found.once.add(reading.result.trial.id)
        return []
    trial = reading.result.trial
    hosts = sorted(reading.hosts)
    if len(doubtful) <= 2:
        return [Plan(design="bisection", hosts=pair, path=trial.path) for pair in doubtful]
    halves = split(hosts, doubtful, rng=search.rng(f"split {trial.id}"))
    return [Plan(design="bisection", hosts=half, path=trial.path) for half in halves if len(half) > 1]


def _decided(evidence: Evidence, found: PairFindings) -> set[Pair]:
    """Return the pairs that were bad by themselves once, and did not stay so."""
    return {
        (min(r.hosts), max(r.hosts))
        for r in evidence.readings
        if len(r.hosts) == 2 and r.result.trial.id in found.once
    }


def doubtful_pairs(evidence: Evidence, found: PairFindings, reading: Reading) -> list[Pair]:
    """Return the pairs of a bad trial that no better trial held together."""
    level = reading.level
    assert level is not None
    least = max(SLOW_FROM, level - tolerance(level))
    pairs = (
        set(itertools.combinations(sorted(reading.hosts), 2)) - set(found.accused) - _decided(evidence, found)
    )
    for other in evidence.readings:
        is_same_path = other.result.trial.path == reading.result.trial.path
        if is_same_path and other.level is not None and other.level < least and not other.dip:
            pairs -= set(itertools.combinations(sorted(other.hosts & reading.hosts), 2))
    return sorted(pairs)

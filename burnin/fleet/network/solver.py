"""Who is to blame: parts are as bad as the best trial that they took part in allows.

A collective runs at the speed of its slowest member, so its level is the *maximum* over its parts. Least
squares on sums would spread the blame of one bad part over all its partners. Under the maximum the logic is
exact: no part is worse than the best trial that it was in, and a bad trial needs a part that can be as bad
as it. A part is to blame when it is the only one left that can; the noise of trials alike gives the
interval.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from burnin.fleet.network.part import DOMAIN, LEAF, OUTWARD, SHARED, SIDES, Part
from burnin.fleet.network.reading import SAME_LEVEL, Reading
from burnin.fleet.network.references import SLOW_FROM

SHARED_HOSTS_MIN = 4  # so many hosts must be bad without a good one before what they share is to blame
INTERVAL_Z = 1.96
WORKS = 15.0  # a level below all that is no slowness
# Two healthy trials never agree better than this, however few there are to learn it from.
NOISE_MIN = 0.008


@dataclass(slots=True)
class Evidence:
    """What all trials so far say about each part."""

    readings: Sequence[Reading]
    topology_fabric: dict[str, str]
    upper: dict[Part, float] = field(default_factory=dict)  # no part is worse than this
    tried: dict[Part, list[Reading]] = field(default_factory=dict)
    ran: dict[Part, list[Reading]] = field(default_factory=dict)  # also what could not be judged
    shared: dict[Part, float] = field(
        default_factory=dict
    )  # bad ones among what hosts share, with their level
    accused: dict[Part, float] = field(default_factory=dict)  # hosts' parts, with their level
    solo: dict[Part, list[Reading]] = field(default_factory=dict)  # bad trials that only this part explains

    def is_good(self, part: Part) -> bool:
        """Whether some trial has shown that a part is well."""
        return self.upper.get(part, math.inf) < SLOW_FROM

    def explains(self, reading: Reading) -> bool:
        """Whether an accused part is as bad as a bad trial was."""
        assert reading.level is not None
        known = itertools.chain(self.accused.items(), self.shared.items())
        return any(
            part in reading.parts and level >= reading.level - tolerance(reading.level)
            for part, level in known
        )


def weigh(
    readings: Sequence[Reading], fabric: dict[str, str], given: Mapping[Part, float] | None = None
) -> Evidence:
    """Return what the readings say together, and what other trials have shown of parts before."""
    evidence = Evidence(readings=readings, topology_fabric=fabric, upper=dict(given or {}))
    _note(evidence, readings)
    _blame_shared(evidence)
    _blame_hosts(evidence)
    return evidence


def weigh_more(evidence: Evidence, more: Sequence[Reading]) -> Evidence:
    """Return what the readings say together with some more, where none of the earlier ones has changed."""
    evidence = replace(evidence, shared={}, accused={}, solo={})
    _note(evidence, more)
    _blame_shared(evidence)
    _blame_hosts(evidence)
    return evidence


def _note(evidence: Evidence, readings: Iterable[Reading]) -> None:
    """Note which part took part in what, and how bad it is at most."""
    for reading in readings:
        if not reading.is_main:
            continue
        for part in reading.parts:
            evidence.ran.setdefault(part, []).append(reading)
        if reading.level is None:
            continue
        for part in reading.parts:
            evidence.upper[part] = min(evidence.upper.get(part, math.inf), reading.level)
            evidence.tried.setdefault(part, []).append(reading)
        for part in reading.common:  # it works, at a speed that these trials cannot tell
            evidence.upper[part] = min(evidence.upper.get(part, math.inf), WORKS)


def tolerance(level: float) -> float:
    """Return how close levels must be to be the same."""
    return SAME_LEVEL + 0.05 * level if level < 10 else 1.0


def _blame_shared(evidence: Evidence) -> None:
    """Blame what hosts share when none of its trials was ever good, and several hosts were in them."""
    for kind in (LEAF, DOMAIN, OUTWARD):
        for part, tried in evidence.tried.items():
            if part.kind != kind or evidence.upper[part] < SLOW_FROM:
                continue
            if kind == OUTWARD and Part(LEAF, part.name) in evidence.shared:
                continue
            if _is_to_blame(evidence, part, tried):
                evidence.shared[part] = evidence.upper[part]


def _is_to_blame(evidence: Evidence, part: Part, tried: Sequence[Reading]) -> bool:
    """Say whether at least two small trials with hosts of their own, and enough hosts in all, were bad."""
    level = evidence.upper[part]
    hosts: set[str] = set()
    groups: list[frozenset[str]] = []
    for reading in tried:
        assert reading.level is not None
        own = _own_hosts(evidence, part, reading)
        if reading.level <= level + tolerance(level) and len(reading.hosts) <= 2:
            hosts |= own
            if all(own.isdisjoint(group) for group in groups):
                groups.append(own)
    others_are_well = part.kind != OUTWARD or _others_are_well(evidence, part, tried)
    enough = 2 if part.kind == OUTWARD else SHARED_HOSTS_MIN
    return len(groups) >= 2 and len(hosts) >= enough and others_are_well


def _own_hosts(evidence: Evidence, part: Part, reading: Reading) -> frozenset[str]:
    if part.kind == DOMAIN:
        return reading.hosts
    return frozenset(host for host in reading.hosts if evidence.topology_fabric.get(host) == part.name)


def _others_are_well(evidence: Evidence, part: Part, tried: Sequence[Reading]) -> bool:
    """Say whether two bad ways out of a fabric led to two others that are well, between hosts that are."""
    partners = set()
    for reading in tried:
        others = {p for p in reading.parts if p.kind == OUTWARD and p != part}
        sides = [p for p in reading.parts if p.kind in SIDES]
        if len(others) == 1 and all(evidence.is_good(p) for p in (*others, *sides)):
            partners |= others
    return len(partners) >= 2


def _blame_hosts(evidence: Evidence) -> None:
    for reading in evidence.readings:
        if reading.is_bad and reading.is_main:
            candidates = candidates_of(evidence, reading)
            if len(candidates) == 1:
                evidence.solo.setdefault(candidates[0], []).append(reading)
    for part, readings in evidence.solo.items():
        if part.kind in SIDES and _has_two_partners(evidence, part, readings):
            evidence.accused[part] = statistics.median(r.level for r in readings if r.level is not None)


def candidates_of(evidence: Evidence, reading: Reading) -> list[Part]:
    """Return the parts that can be as bad as a trial was."""
    assert reading.level is not None
    least = max(SLOW_FROM, reading.level - tolerance(reading.level))
    able = [part for part in sorted(reading.parts) if evidence.upper.get(part, math.inf) >= least]
    if not able:
        return _never_well(evidence, reading)
    # Blame by name does not convict by itself, but it narrows down whom to test next.
    named = [part for part in able if part.name in reading.blamed]
    shared = [p for p in able if p in evidence.shared]
    if shared:
        return shared
    hosts = [part for part in (named or able) if part.kind in SIDES]
    # What is shared and was never well can still turn out to be it: a host is not alone to blame.
    doubtful = [p for p in able if p.kind in SHARED and _is_doubtful(evidence, p)]
    return hosts + (doubtful if not named else [])


def _never_well(evidence: Evidence, reading: Reading) -> list[Part]:
    """Return the hosts that were never well, in a trial that was worse than the best of each of its parts.

    What dips all the time is bad in every trial, in some more than in others.
    """
    never = [part for part in sorted(reading.parts) if not evidence.is_good(part)]
    return never if all(part.kind in SIDES for part in never) else []


def _is_doubtful(evidence: Evidence, part: Part) -> bool:
    """Whether what hosts share may still be what is bad: none of several trials through it was good."""
    tried = evidence.tried.get(part, ())
    return not evidence.is_good(part) and len({h for r in tried for h in r.hosts}) >= SHARED_HOSTS_MIN


def _has_two_partners(evidence: Evidence, part: Part, readings: Sequence[Reading]) -> bool:
    """Two bad trials with different others, one of them among others that are all known to be well."""
    if part.name and len(readings) < 2:
        return False
    others = {reading.hosts - {part.name} for reading in readings}
    among_well = any(
        all(evidence.is_good(p) for p in reading.parts if p.kind == part.kind and p != part)
        for reading in readings
    )
    return len(others) >= 2 and among_well


def noise_of(readings: Iterable[Reading]) -> float:
    """Return the standard deviation of the levels of good trials of two hosts, robustly."""
    levels = [r.level for r in readings if r.is_good and r.level is not None and len(r.hosts) <= 2]
    if len(levels) < 8:
        return max(NOISE_MIN, 0.02)
    middle = statistics.median(levels)
    return max(NOISE_MIN, 1.4826 * statistics.median(abs(level - middle) for level in levels))


def interval(levels: Sequence[float], *, noise: float) -> tuple[float, float, float]:
    """Return slowdown with its 95 % interval, as ratios of time.

    It is the profile likelihood of a level under normal noise in the logarithm, whose size is learned from
    the healthy trials: of the part's own few trials nobody could learn it. The reference adds its own
    uncertainty.
    """
    middle = statistics.fmean(levels)
    half = INTERVAL_Z * noise * math.sqrt(1 / len(levels) + 1 / 4)
    return math.exp(middle), math.exp(max(0.0, middle - half)), math.exp(middle + half)

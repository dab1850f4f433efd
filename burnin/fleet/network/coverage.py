"""Which hosts have met in a trial that went well, and who should meet next."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from burnin.fleet.network.designs import Group
from burnin.fleet.network.meetings import Meetings, Pair, names_of
from burnin.fleet.network.reading import Reading

TEAM = 8  # hosts that have to meet the same others go to them together
ALIKE_MIN = 0.5  # of what one has to meet, so that they do


def met_in(names: Sequence[str], readings: Iterable[Reading], accused: Iterable[Pair]) -> Meetings:
    """Return who exchanged data well, or is accused as a pair: what a worse part hides was not tested."""
    met = Meetings(names)
    for reading in readings:
        is_judged = reading.level is not None or reading.works
        if reading.is_main and is_judged and not reading.is_bad:
            met.add(reading.hosts)
    for pair in accused:
        met.add(pair)
    return met


def gather(missing: Meetings, *, size: int, fillers: Iterable[str]) -> list[Group]:
    """Return groups of ``size`` hosts, no host twice, that let many of the missing pairs meet.

    Who has most to meet comes first, with others who have to meet the same hosts. Groups are filled up from
    ``fillers``, because only groups alike can be compared; what stays small becomes a pair.
    """
    free = missing.mask(name for name, mask in missing.masks.items() if mask)
    order = sorted(missing.masks, key=lambda name: -missing.masks[name].bit_count())
    bit = {name: missing.mask([name]) for name in order if missing.masks[name]}
    groups: list[list[str]] = []
    for first in order:
        if not (bit.get(first, 0) & free and missing.masks[first] & free):
            continue
        team = _team(missing, first, free, bit)
        free &= ~missing.mask(team)
        common = missing.masks[first] & free
        for name in team[1:]:
            common &= missing.masks[name]
        wanted = list(itertools.islice(names_of(common, missing.names), size - len(team)))
        if not wanted:
            free |= missing.mask(team[1:])
            team = team[:1]
            wanted = list(itertools.islice(names_of(missing.masks[first] & free, missing.names), size - 1))
        if wanted:
            free &= ~missing.mask(wanted)
            groups.append(team + wanted)
    taken = {name for group in groups for name in group}
    return _filled(groups, size, [name for name in fillers if name not in taken])


def _team(missing: Meetings, first: str, free: int, bit: dict[str, int]) -> list[str]:
    own = missing.masks[first] & free
    needed = ALIKE_MIN * own.bit_count()
    team = [first]
    for name, own_bit in bit.items():
        if len(team) >= TEAM or needed < TEAM:
            break
        is_free = own_bit & free and name != first
        if is_free and (missing.masks[name] & own).bit_count() >= needed:
            team.append(name)
            own &= missing.masks[name]
    return team


def _filled(groups: list[list[str]], size: int, spare: list[str]) -> list[Group]:
    found: list[Group] = []
    for group in sorted(groups, key=len, reverse=True):
        lacking = size - len(group)
        if len(spare) >= lacking:
            group += [spare.pop() for _ in range(lacking)]
        found.append(tuple(group if len(group) == size else (group[0], group[-1])))
    return found

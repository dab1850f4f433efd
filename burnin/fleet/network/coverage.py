"""Which hosts have met in a trial that went well, and who should meet next."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from burnin.fleet.network.designs import Group
from burnin.fleet.network.reading import Reading

Pair = tuple[str, str]
TEAM = 8  # hosts that have to meet the same others go to them together
ALIKE_MIN = 0.5  # of what one has to meet, so that they do


@dataclass(slots=True)
class Meetings:
    """A set of pairs of hosts, as one number of as many bits as there are hosts for each of them."""

    names: Sequence[str]
    masks: dict[str, int] = field(default_factory=dict)
    _bits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bits = {name: 1 << index for index, name in enumerate(self.names)}
        self.masks = self.masks or dict.fromkeys(self.names, 0)

    def add(self, hosts: Iterable[str]) -> None:
        """Add all pairs among some hosts."""
        known = [host for host in hosts if host in self._bits]
        together = self.mask(known)
        for host in known:
            self.masks[host] |= together & ~self._bits[host]

    def mask(self, hosts: Iterable[str]) -> int:
        """Return some hosts as bits."""
        return sum(self._bits[host] for host in hosts)

    def holds(self, pair: Pair) -> bool:
        """Say whether a pair is in the set."""
        return bool(self.masks[pair[0]] & self._bits[pair[1]])

    def count(self) -> int:
        """Return how many pairs are in the set."""
        return sum(mask.bit_count() for mask in self.masks.values()) // 2

    def without(self, others: Meetings) -> Meetings:
        """Return the pairs that are not in another set over the same hosts."""
        return Meetings(self.names, {name: mask & ~others.masks[name] for name, mask in self.masks.items()})

    def both(self, others: Meetings) -> Meetings:
        """Return the pairs that are in another set over the same hosts as well."""
        return Meetings(self.names, {name: mask & others.masks[name] for name, mask in self.masks.items()})

    def either(self, others: Meetings) -> Meetings:
        """Return the pairs that are in this or in another set over the same hosts."""
        return Meetings(self.names, {name: mask | others.masks[name] for name, mask in self.masks.items()})

    def strike(self, hosts: Iterable[str]) -> None:
        """Take out all pairs among some hosts."""
        hosts = list(hosts)
        together = self.mask(hosts)
        for host in hosts:
            self.masks[host] &= ~together

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs, in the order of the hosts."""
        for index, name in enumerate(self.names):
            later = self.masks[name] >> (index + 1)
            for other in names_of(later, self.names[index + 1 :]):
                yield name, other


def names_of(mask: int, names: Sequence[str]) -> Iterator[str]:
    """Yield the names whose bits are set."""
    while mask:
        low = mask & -mask
        yield names[low.bit_length() - 1]
        mask ^= low


def all_pairs(names: Sequence[str], *, of: AbstractSet[str] | None = None) -> Meetings:
    """Return every pair, or every one of which at least one host is in ``of``."""
    found = Meetings(names)
    whole = found.mask(names)
    some = whole if of is None else found.mask(host for host in names if host in of)
    for host in names:
        wanted = whole if of is None or host in of else some
        found.masks[host] = wanted & ~found.mask([host])
    return found


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

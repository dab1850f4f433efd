"""Sets of pairs of hosts, small enough for all pairs of a large fleet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

Pair = tuple[str, str]


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

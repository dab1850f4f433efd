"""Who exchanges data with whom: pure functions from groups of hosts to groups of hosts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence

from burnin.fleet.topology import GROUP_MAX, deal

Group = tuple[str, ...]
SPLITS_TRIED = 24


FEW_DOMAINS = 5


def across(groups: Sequence[Group], *, shift: int, rng: random.Random) -> list[Group]:
    """Return groups of hosts that each stand in another domain; together they hold every host once.

    Not of all domains at once: a domain whose way out is bad would be in every group, and nothing would be
    left to compare with. About √D domains go together, by lot; where there are few, each meets each other
    in pairs.
    """
    if len(groups) < 2:
        return []
    drawn = [tuple(rng.sample(group, len(group))) for group in groups]
    rng.shuffle(drawn)
    if len(groups) <= FEW_DOMAINS:
        return _domains_in_pairs(drawn)
    parts = deal([str(n) for n in range(len(drawn))], size=max(2, round(len(drawn) ** 0.5)), rng=rng)
    return [line for part in parts for line in _columns([drawn[int(n)] for n in part], shift, rng)]


def _domains_in_pairs(groups: Sequence[Group]) -> list[Group]:
    """Return pairs of hosts in which each domain meets each other, with hosts of its own for each."""
    left = {number: list(group) for number, group in enumerate(groups)}
    pairs: list[Group] = []
    while len(left) > 1:
        pairs_before = len(pairs)
        for a, b in itertools.combinations(sorted(left), 2):
            if left[a] and left[b]:
                pairs.append((left[a].pop(), left[b].pop()))
        if len(pairs) == pairs_before:
            break
    return pairs


def _columns(groups: Sequence[Group], shift: int, rng: random.Random) -> list[Group]:
    """Return groups that each hold one host of each of some domains."""
    longest = max(len(group) for group in groups)
    columns = [
        [
            group[place]
            for number, group in enumerate(groups)
            if (place := (index + shift * number) % longest) < len(group)
        ]
        for index in range(longest)
    ]
    whole = [column for column in columns if len(column) > 1]
    single = [column[0] for column in columns if len(column) == 1]
    if len(single) > 1:  # one domain is larger than all others
        whole += [list(part) for part in deal(single, size=max(2, len(groups)), rng=rng)]
    elif single and whole:
        whole[-1] += single
    return [part for column in whole for part in deal(column, size=GROUP_MAX, rng=rng)]


def cover(groups: Sequence[Group]) -> Iterable[list[Group]]:
    """Yield rounds after which every two hosts of different domains were in one group exactly once.

    Lines of an affine plane over a prime: with about √N domains of √N hosts it takes about √N rounds, where a
    tournament of pairs takes N − 1.
    """
    prime = _prime_from(max(len(groups), *(len(group) for group in groups)))
    for slope in range(prime):
        lines = [
            tuple(
                group[place]
                for number, group in enumerate(groups)
                if (place := (start + slope * number) % prime) < len(group)
            )
            for start in range(prime)
        ]
        yield [line for line in lines if len(line) > 1]


def _prime_from(least: int) -> int:
    return next(n for n in itertools.count(max(2, least)) if all(n % k for k in range(2, int(n**0.5) + 1)))


def tournament(names: Sequence[str]) -> Iterable[list[Group]]:
    """Yield rounds of disjoint pairs after which everybody has met everybody (the circle method)."""
    circle: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        pairs = zip(circle[:half], reversed(circle[half:]), strict=True)
        yield [(a, b) for a, b in pairs if a is not None and b is not None]
        circle = [circle[0], circle[-1], *circle[1:-1]]


def split(
    hosts: Sequence[str], doubtful: Iterable[tuple[str, str]], *, rng: random.Random
) -> tuple[Group, Group]:
    """Return two halves that together hold as many of the doubtful pairs as can be found.

    The first split of a group is a bisection; once both halves have passed only pairs across the boundary are
    doubtful, and the halves mix both sides.
    """
    pairs = list(doubtful)
    half = (len(hosts) + 1) // 2

    def draw() -> tuple[Group, Group]:
        drawn = list(hosts)
        rng.shuffle(drawn)
        return tuple(drawn[:half]), tuple(drawn[half:])

    def held(halves: tuple[Group, Group]) -> int:
        first = set(halves[0])
        return sum((a in first) == (b in first) for a, b in pairs)

    return max((draw() for _ in range(SPLITS_TRIED)), key=held)


def match(
    wanting: Sequence[str],
    partners: Callable[[str], Sequence[str]],
    *,
    met: Callable[[str, str], bool],
    taken: set[str],
) -> list[Group]:
    """Return disjoint pairs: each wanting host with the first of its partners that is free and not yet met.

    Whoever is put into a pair is added to ``taken``.
    """
    pairs: list[Group] = []
    for name in wanting:
        if name in taken:
            continue
        partner = next((p for p in partners(name) if p != name and p not in taken and not met(name, p)), None)
        if partner is not None:
            taken |= {name, partner}
            pairs.append((name, partner))
    return pairs

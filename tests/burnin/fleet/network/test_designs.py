from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from burnin.fleet.network.designs import across, cover, split, tournament

_GROUPS = st.lists(st.integers(1, 9), min_size=2, max_size=12).map(
    lambda sizes: [tuple(f"d{n}h{i}" for i in range(size)) for n, size in enumerate(sizes)]
)


@settings(max_examples=30, deadline=None)
@given(groups=_GROUPS, shift=st.integers(0, 5), seed=st.integers(0, 99))
def test_across_no_host_is_twice_and_every_group_holds_several(
    groups: list[tuple[str, ...]], shift: int, seed: int
) -> None:
    found = across(groups, shift=shift, rng=random.Random(seed))
    hosts = [host for group in found for host in group]

    assert len(hosts) == len(set(hosts))
    assert all(len(group) >= 2 for group in found)


def test_across_equal_domains_each_host_meets_other_domains_only() -> None:
    groups = [tuple(f"d{n}h{i}" for i in range(8)) for n in range(16)]

    found = across(groups, shift=1, rng=random.Random(3))

    assert sorted(h for g in found for h in g) == sorted(h for g in groups for h in g)
    assert all(len({host.split("h")[0] for host in group}) == len(group) for group in found)


def test_across_some_groups_are_without_any_given_domain() -> None:
    groups = [tuple(f"d{n}h{i}" for i in range(8)) for n in range(16)]

    found = across(groups, shift=0, rng=random.Random(3))

    assert all(
        any(not any(host.startswith(f"d{n}h") for host in group) for group in found) for n in range(16)
    )


@settings(max_examples=30, deadline=None)
@given(groups=_GROUPS)
def test_a_cover_lets_every_two_hosts_of_different_domains_meet_exactly_once(
    groups: list[tuple[str, ...]],
) -> None:
    met = [
        frozenset(pair)
        for groups_of_round in cover(groups)
        for group in groups_of_round
        for pair in itertools.combinations(group, 2)
    ]
    wanted = {
        frozenset((a, b)) for one, other in itertools.combinations(groups, 2) for a in one for b in other
    }

    assert len(met) == len(set(met))
    assert set(met) == wanted


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 15))
def test_a_tournament_lets_everybody_meet_everybody_once_in_disjoint_pairs(count: int) -> None:
    names = [f"n{i}" for i in range(count)]
    rounds = list(tournament(names))
    met = [frozenset(pair) for pairs in rounds for pair in pairs]

    assert len(met) == len(set(met)) == count * (count - 1) // 2
    assert all(len({h for pair in pairs for h in pair}) == 2 * len(pairs) for pairs in rounds)


def test_after_both_halves_passed_the_next_split_mixes_them() -> None:
    hosts = [f"n{i}" for i in range(16)]
    first, second = set(hosts[:8]), set(hosts[8:])
    doubtful = [(a, b) for a in sorted(first) for b in sorted(second)]

    halves = split(hosts, doubtful, rng=random.Random(1))
    held = sum((a in halves[0]) == (b in halves[0]) for a, b in doubtful)

    assert held >= len(doubtful) // 2

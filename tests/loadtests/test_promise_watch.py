"""A guard over a promise stops what breaks it, and hardly ever what keeps it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from loadtests.sending.promise_watch import PromiseWatch
from probes.share_test import chance_of_so_many

ALLOWED = 0.1


def stopped_after(bad: Iterable[bool], *, has_failed: bool = False) -> int | None:
    """Return after how many requests it stops."""
    watch = PromiseWatch(ALLOWED)
    for count, is_bad in enumerate(bad, 1):
        if watch.is_broken(is_bad=is_bad, has_failed=is_bad and has_failed):
            return count
    return None


def in_bursts(seed: int, *, share: float, count: int = 4096, length: float = 30.0) -> Iterator[bool]:
    """Yield requests of which a share is bad, in bursts."""
    chance, is_burst = random.Random(seed), False
    for _ in range(count):
        is_burst = chance.random() < (1 - 1 / length if is_burst else share / (1 - share) / length)
        yield is_burst


def stops_that_take_all_as_independent(seed: int) -> bool:
    bad = 0
    for count, is_bad in enumerate(in_bursts(seed, share=ALLOWED), 1):
        bad += is_bad
        is_look = count >= 64 and count & (count - 1) == 0
        if is_look and chance_of_so_many(bad, count, allowed=ALLOWED) <= 0.001 * 64 / (2 * count):
            return True
    return False


def test_bursts_within_the_allowed_share_do_not_stop_a_load() -> None:
    runs = range(200)

    assert sum(map(stops_that_take_all_as_independent, runs)) > 40
    assert sum(stopped_after(in_bursts(seed, share=ALLOWED)) is not None for seed in runs) <= 4


def test_what_is_broken_stops_the_load_in_bursts_too() -> None:
    assert stopped_after([True] * 300) == 256
    assert all(stopped_after(in_bursts(seed, share=0.5)) for seed in range(50))


def test_failures_are_facts_each_by_itself() -> None:
    outage = [False] * 64 + [True] * 64

    assert stopped_after(outage, has_failed=True) == 128
    assert stopped_after(outage) is None

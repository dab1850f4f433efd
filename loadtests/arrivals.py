"""When requests arrive: one seeded schedule for the whole run, whatever number of workers walks it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from loadtests.workload import Arrivals


def arrival_times_s(arrivals: Arrivals, *, duration_s: float, seed: int) -> Iterator[float]:
    """Yield the offset of each arrival from the start, in order, all below ``duration_s``."""
    if arrivals.kind == "constant":
        # Counted, not summed up: a sum of many small gaps would drift.
        index = 0
        while (offset := index / arrivals.rate_per_s) < duration_s:
            yield offset
            index += 1
        return
    chance = random.Random(f"arrivals:{seed}")
    offset = chance.expovariate(arrivals.rate_per_s)
    while offset < duration_s:
        yield offset
        offset += chance.expovariate(arrivals.rate_per_s)


def share_of(times_s: Iterator[float], *, worker: int, workers: int) -> Iterator[tuple[int, float]]:
    """Yield (index in the whole schedule, offset) of every ``workers``-th arrival, from ``worker`` on."""
    return islice(enumerate(times_s), worker, None, workers)

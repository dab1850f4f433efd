"""When requests arrive: one seeded schedule for the whole run, whatever number of workers walks it.

In an open loop every arrival is absolute. In a closed loop only each user's first one is; the next is due
when the answer before it has ended and the user has thought, for a time that seed, user and turn decide.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeVar

from loadtests.traffic.rates import Piece, Wave, moments_s
from loadtests.traffic.trace import Trace, TraceRow, read_trace

# A request that follows from another has the index of its chain times this, plus its turn.
CHAIN_STRIDE = 1_000_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Think:
    """How long a user takes between an answer and the next request."""

    kind: str = "constant"  # or exponential
    mean_s: float = 0.0

    def draw_s(self, *, seed: int, chain: int, turn: int) -> float:
        """Return the time before this turn: the same for anybody who knows the seed."""
        if self.kind == "constant" or not self.mean_s:
            return self.mean_s
        return random.Random(f"think:{seed}:{chain}:{turn}").expovariate(1 / self.mean_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """A fixed number of users, each with at most one request under way."""

    users: int
    think: Think = Think()
    start_over_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests are wanted: a rate and a process, a trace, or a closed loop."""

    rate: tuple[Piece, ...] | Wave = ()
    process: str = "poisson"  # constant, poisson or gamma
    shape: float = 1.0  # of gamma gaps
    trace: Trace | None = None  # None: not a replay
    closed: ClosedLoop | None = None  # None: an open loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One arrival of the schedule."""

    at_s: float
    row: TraceRow | None = None  # None: the workload's own sizes count


def schedule(arrivals: Arrivals, *, duration_s: float, seed: int) -> Iterator[Arrival]:
    """Yield each arrival in order, all within ``duration_s``; of a closed loop, the users' first ones.

    Raises:
        ConfigError: a line of a trace cannot be read.
    """
    if arrivals.trace is not None:
        for row in read_trace(arrivals.trace):
            if row.at_s >= duration_s:
                return
            yield Arrival(at_s=row.at_s, row=row)
    elif arrivals.closed is not None:
        closed = arrivals.closed
        gap_s = closed.start_over_s / closed.users
        yield from (Arrival(at_s=user * gap_s) for user in range(closed.users) if user * gap_s < duration_s)
    else:
        for at_s in moments_s(arrivals.rate, _counts(arrivals, seed)):
            if at_s >= duration_s:
                return
            yield Arrival(at_s=at_s)


def arrival_times_s(arrivals: Arrivals, *, duration_s: float, seed: int) -> Iterator[float]:
    """Yield the offset of each arrival from the start, in order, all below ``duration_s``."""
    return (arrival.at_s for arrival in schedule(arrivals, duration_s=duration_s, seed=seed))


def _counts(arrivals: Arrivals, seed: int) -> Iterator[float]:
    """Yield the points of a process whose rate is 1."""
    if arrivals.process == "constant":
        # Counted, not summed up: a sum of many small gaps would drift.
        yield from (float(index) for index in count())
    chance, point = random.Random(f"arrivals:{seed}"), 0.0
    while True:
        if arrivals.process == "poisson":
            point += chance.expovariate(1.0)
        else:
            point += chance.gammavariate(arrivals.shape, 1 / arrivals.shape)
        yield point


def share_of(schedule: Iterable[_T], *, worker: int, workers: int) -> Iterator[tuple[int, _T]]:
    """Yield (index in the whole schedule, item) of every ``workers``-th one, from ``worker`` on."""
    return islice(enumerate(schedule), worker, None, workers)

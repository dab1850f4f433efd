"""Effective training time ratio: what part of the wall time went into steps that count, and what to expect.

Measured: the steps that count, each at what a step takes in health, over the wall time. So a stall, a
restart, a step done again, a slow rank and a checkpoint that blocks all cost. Expected: the first-order
model of Young and Daly, as in *Revisiting Reliability in Large-Scale Machine Learning Research Clusters*
(HPCA 2025): E = (1 - (u0 + dt/2) / M) / (1 + w/dt), with restart overhead u0, time between checkpoints dt,
blocking time of one checkpoint w, and mean time between failures M.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from probes.quantile_bound import quantile_bounds
from probes.training_progress import Progress
from probes.training_step import Step

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """A measured ratio."""

    ratio: float
    low: float | None  # None: too few healthy steps to bound what one takes
    high: float | None
    productive_s: float
    wall_s: float


def find_effective(
    progress: Progress, healthy_s: Sequence[float], *, start_ns: int, end_ns: int, world: int
) -> Effective | None:
    """Return the ratio over a stretch; None: it has no length, or nothing tells what a healthy step takes.

    ``healthy_s``: what steps took before anything was broken, with ``world`` ranks; one that fewer ranks did
    counts for their share. The bounds come from the median of it.
    """
    wall_s = (end_ns - start_ns) / 1e9
    if wall_s <= 0 or not healthy_s or (typical := median(healthy_s)) <= 0:
        return None
    inside = progress.between(start_ns, end_ns)
    done = inside.stride * sum(min(1.0, s.world / world) for s in inside.steps if s.is_new)
    low, high = quantile_bounds(sorted(healthy_s), objective=0.5, confidence=CONFIDENCE)
    return Effective(
        ratio=min(1.0, done * typical / wall_s),
        low=None if low is None else min(1.0, done * low / wall_s),
        high=None if high is None else min(1.0, done * high / wall_s),
        productive_s=done * typical,
        wall_s=wall_s,
    )


def optimal_interval_s(*, write_s: float, mttf_s: float) -> float:
    """Return the time between checkpoints that costs least, after Young and Daly: sqrt(2 w M)."""
    return math.sqrt(2 * write_s * mttf_s)


def expected_ratio(*, interval_s: float, write_s: float, restart_s: float, mttf_s: float) -> float:
    """Return the ratio to expect; 0 where a failure costs more than the time until the next one."""
    if interval_s <= 0 or mttf_s <= 0:
        return 0.0
    return max(0.0, 1 - (restart_s + interval_s / 2) / mttf_s) / (1 + write_s / interval_s)


def checkpoint_every(rows: Sequence[Step]) -> int | None:
    """Return the steps between two checkpoints, as the steps themselves show; None: they show no two."""
    safe = sorted({row.checkpoint_step for row in rows if row.checkpoint_step is not None})
    gaps = [after - before for before, after in pairwise(safe)]
    return max(1, round(median(gaps))) if gaps else None


def checkpoint_write_s(rows: Sequence[Step]) -> float | None:
    """Return how long a checkpoint blocks the job; None: no step says.

    Where some steps write one, the others' own share of it is nothing: those that advance what is safe count.
    """
    last: dict[int, int | None] = {}
    found: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: row.t_ns):
        is_written = row.checkpoint_step is not None and row.checkpoint_step != last.get(row.rank)
        if is_written and row.rank in last and row.checkpoint_s is not None:
            found[row.step] = max(found.get(row.step, 0.0), row.checkpoint_s)
        last[row.rank] = row.checkpoint_step
    return median(found.values()) if found else None

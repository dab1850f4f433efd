"""The rank that all others wait for: its work before the collective takes longer, step after step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from probes.training_step import Step

FACTOR = 1.5  # times what the others take
STEPS_MIN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A slow rank."""

    rank: int
    factor: float  # its median time over that of the others
    slow_share: float  # of its steps, in which it was that slow
    steps: int


def find_straggler(rows: Sequence[Step], *, factor: float = FACTOR) -> Straggler | None:
    """Return the rank that works so many times as long as the others; None: no one, or nobody can say.

    Each step is compared with the same step of the others, so a step that is hard for all accuses no one,
    and a rank that is now and then held up is none: it has to be that slow in most of its steps.
    """
    by_step: dict[tuple[int, int], dict[int, float]] = {}
    for row in rows:
        if row.compute_s is not None:
            by_step.setdefault((row.restart, row.step), {})[row.rank] = row.compute_s
    ratios: dict[int, list[float]] = {}
    for took in (took for took in by_step.values() if len(took) > 1):
        for rank, seconds in took.items():
            others = median(s for r, s in took.items() if r != rank)
            if others > 0:
                ratios.setdefault(rank, []).append(seconds / others)
    slow = [
        Straggler(
            rank=rank,
            factor=median(found),
            slow_share=sum(ratio >= factor for ratio in found) / len(found),
            steps=len(found),
        )
        for rank, found in ratios.items()
        if len(found) >= STEPS_MIN and median(found) >= factor
    ]
    return max(slow, key=lambda found: found.factor, default=None)

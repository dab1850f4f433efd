"""How fast a training job gets on, and whether as fast as before: steps that count, times the ranks they had.

A job that goes on with half of its ranks takes as many steps a second, and does half the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from probes.student_t import quantile
from probes.training_progress import Progress

BLOCK_S = 1.0
BLOCKS_MIN = 4  # below that the spread is not known
DOUBT = 0.05  # that a bound of the ratio is wrong, on either side


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRatio:
    """The rate of one stretch over that of another, with its bounds."""

    before: float  # rank-steps a second
    after: float
    low: float | None  # of after / before; None: too short to know
    high: float | None

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


def work_by_block(progress: Progress, start_ns: int, end_ns: int) -> list[float]:
    """Return the rank-steps a second of each whole block; one in which nothing counted has 0."""
    block_ns = round(BLOCK_S * 1e9)
    blocks = [0.0] * ((end_ns - start_ns) // block_ns)
    for step in progress.steps:
        index = (step.t_ns - start_ns) // block_ns
        if step.is_new and 0 <= index < len(blocks):
            blocks[index] += progress.stride * step.world / BLOCK_S
    return blocks


def steps_per_s(progress: Progress, start_ns: int, end_ns: int) -> float:
    """Return the steps that count, a second."""
    span_s = (end_ns - start_ns) / 1e9
    return progress.between(start_ns, end_ns).new_steps / span_s if span_s > 0 else 0.0


def compare_rates(before: Sequence[float], after: Sequence[float]) -> RateRatio | None:
    """Compare two stretches by their blocks; None: nothing was done before, or there is no block.

    The bounds are those of the ratio of two means by the spread of their blocks (Fieller's first order).
    """
    if not before or not after or fmean(before) <= 0:
        return None
    old, new = fmean(before), fmean(after)
    if len(before) < BLOCKS_MIN or len(after) < BLOCKS_MIN:
        return RateRatio(before=old, after=new, low=None, high=None)
    ratio = new / old
    spread = math.sqrt(variance(after) / len(after) + ratio**2 * variance(before) / len(before)) / old
    margin = quantile(DOUBT, len(after) + len(before) - 2) * spread
    return RateRatio(before=old, after=new, low=max(0.0, ratio - margin), high=ratio + margin)

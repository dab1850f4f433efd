"""How uncertain a share is when neighbours resemble each other: resampled in whole blocks, not one by one.

A slow second makes a hundred slow requests; taken as independent they would prove far too much. The spread
here is the one that a bootstrap of whole blocks converges to, in closed form, so that it needs no seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BLOCKS_MAX = 64
BLOCKS_MIN = 16  # fewer would leave the spread itself unknown
# With neighbouring blocks more alike than this, the run is one slow movement: no block length would do.
_LIKENESS_MAX = 0.9

Pair = tuple[float, float]


def ratio(pairs: Sequence[Pair]) -> float:
    """Return the sum of the first over the sum of the second."""
    return sum(top for top, _ in pairs) / sum(bottom for _, bottom in pairs)


def ratio_spread(pairs: Sequence[Pair]) -> float:
    """Return the standard error of ``ratio``, with each pair one of at most 64 blocks in the order of time.

    Blocks are joined two by two until 16 are left, and the largest spread counts: where dependence reaches
    over a block, longer ones show it. What is left of it between the longest is allowed for as in a series
    whose neighbours correlate.
    """
    spreads = []
    level = list(pairs)
    while len(level) >= BLOCKS_MIN:
        spreads.append(_spread(level))
        longest, level = level, _joined(level)
    if not spreads:
        return math.inf
    likeness = _likeness(longest)
    return max(spreads) * math.sqrt((1 + likeness) / (1 - likeness))


def _spread(pairs: Sequence[Pair]) -> float:
    total, count = sum(bottom for _, bottom in pairs), len(pairs)
    return math.sqrt(sum(rest**2 for rest in _rests(pairs)) * count / (count - 1)) / total


def _rests(pairs: Sequence[Pair]) -> list[float]:
    share = ratio(pairs)
    return [top - share * bottom for top, bottom in pairs]


def _joined(pairs: Sequence[Pair]) -> list[Pair]:
    return [
        (pairs[i][0] + pairs[i + 1][0], pairs[i][1] + pairs[i + 1][1]) for i in range(0, len(pairs) - 1, 2)
    ]


def _likeness(pairs: Sequence[Pair]) -> float:
    """Return the correlation of neighbouring blocks, from 0 up; a short series shows it 1/n too low."""
    rests = _rests(pairs)
    square = sum(rest**2 for rest in rests)
    if not square:
        return 0.0
    product = sum(rests[i] * rests[i + 1] for i in range(len(rests) - 1))
    return min(_LIKENESS_MAX, max(0.0, product / square + 1 / len(rests)))


def block_edges(count: int) -> list[int]:
    """Return where at most 64 blocks of equal size begin and end in a series of this length."""
    blocks = min(BLOCKS_MAX, count)
    return [round(index * count / blocks) for index in range(blocks + 1)] if count else [0]

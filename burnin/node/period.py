"""The period of miscompared addresses: a fault in a row, a bank or a lane repeats at a fixed distance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

SHARE_MIN = 0.6  # of the distances between neighbours that must be the same one
ADDRESSES_MIN = 3


def find_period(addresses: Sequence[int]) -> int | None:
    """Return the distance at which addresses repeat; None: too few of them, or no distance prevails."""
    if len(addresses) < ADDRESSES_MIN:
        return None
    ordered = sorted(addresses)
    distances = Counter(after - before for before, after in pairwise(ordered))
    distance, count = distances.most_common(1)[0]
    return distance if count >= SHARE_MIN * (len(ordered) - 1) else None

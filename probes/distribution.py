"""How the values of one metric lie over many requests, without an object for each.

Gaps between tokens are whole microseconds and come by the hundred million: of them, only how often each comes
is kept.
"""

from __future__ import annotations

import bisect
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from probes.in_order import ascending
from probes.metric import ITL, METRICS, at_share
from probes.request import Request
from probes.request_columns import of


class Counted:
    """Whole numbers, each with how often it came."""

    def __init__(self, counts: Counter[int]) -> None:
        self._values = sorted(counts)
        self._ends = list(accumulate(counts[value] for value in self._values))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def ranked(self, rank: int) -> int:
        """Return the value at this rank, from 1 for the lowest."""
        return self._values[bisect.bisect_left(self._ends, rank)]

    def at_share(self, share: float) -> int:
        """Return the order statistic at ``share`` (nearest rank)."""
        return self.ranked(max(1, math.ceil(share * len(self))))


class Distribution:
    """The values of one metric, of the requests that were answered whole."""

    def __init__(self, metric: str, requests: Sequence[Request]) -> None:
        self._ordered: Sequence[float] = ()
        self._gaps = Counted(Counter())
        if metric == ITL:
            self._gaps = Counted(
                count_gaps(gaps for error, gaps in of(requests, "error", "gaps_us") if error is None)
            )
        else:
            read = METRICS[metric].read
            values = array("d", (value for request in requests if request.is_good for value in read(request)))
            self._ordered = ascending(values)

    def __len__(self) -> int:
        return len(self._gaps) or len(self._ordered)

    def at_share(self, share: float) -> float:
        """Return the order statistic at ``share`` (nearest rank): a value that was really measured."""
        return self._gaps.at_share(share) / 1000 if len(self._gaps) else at_share(self._ordered, share)


def count_gaps(gaps: Iterable[Sequence[int]]) -> Counter[int]:
    """Count the gaps of requests, in microseconds."""
    counts: Counter[int] = Counter()
    for one in gaps:
        counts.update(one)
    return counts

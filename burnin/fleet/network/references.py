"""What a healthy trial reaches: the fastest level that several trials alike agree on.

Parts can only slow a collective down, so where most groups hold a bad part the median is a figure of sick
groups.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.part import SHARED, Part
from burnin.fleet.network.trial import TrialResult

SLOW_FROM = 0.08  # 8 %: a practical floor above what trials alike differ by on healthy fabrics (1 to 2 %)
AGREE_WITHIN = 0.05  # trials that reach the reference
AGREE_SHARE_MIN, TRUST_SHARE_MIN = 0.05, 0.25
FEW_ALIKE = 6
ALIKE_SIZE = 1 / 8  # numbers of hosts that differ by less are alike
# With so many figures a reference stands until there are a tenth more: what few add is far below the noise.
STANDS_FROM, STANDS_UNTIL = 40, 1.1
COMMON_SHARE = 0.8  # of the trials that reach the reference

# Collective, size, path, scope, models and ranks of a host: what must be equal for two sweeps to be alike.
Key = tuple[str, int, str, str, str, int]
Figure = tuple[float, float]  # bus bandwidth, and logarithm of the worst iteration over the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a sweep should reach, and how steady it should be."""

    busbw_gbps: float
    steadiness: float  # usual logarithm of the worst iteration over the mean
    unrest: float  # what that usually differs by, robustly
    is_trusted: bool  # enough of the trials alike reach it
    common: frozenset[Part]  # that hosts share, of nearly all trials that reach it


@dataclass(slots=True)
class References:
    """What healthy trials reach, from all trials alike so far."""

    # By number of hosts, then by group: one counts once, however often it ran, or it would become its own
    # reference.
    _figures: dict[Key, dict[int, dict[frozenset[str], list[Figure]]]] = field(default_factory=dict)
    _middle: dict[Key, dict[int, dict[frozenset[str], Figure]]] = field(default_factory=dict)
    _counts: dict[Key, dict[int, int]] = field(default_factory=dict)
    _shared: dict[frozenset[str], dict[Key, frozenset[Part]]] = field(default_factory=dict)
    _known: dict[tuple[Key, int], tuple[int, Reference | None]] = field(default_factory=dict)

    def add(
        self, result: TrialResult, keys: Sequence[Key], hosts: frozenset[str], parts: frozenset[Part]
    ) -> None:
        """Add the figures of a trial that came to its end."""
        size = len(hosts)
        for sweep, key in zip(result.sweeps, keys, strict=True):
            steadiness = math.log(max(sweep.busbw_worst_gbps, 1e-9) / max(sweep.busbw_gbps, 1e-9))
            figures = self._figures.setdefault(key, {}).setdefault(size, {}).setdefault(hosts, [])
            figures.append((sweep.busbw_gbps, steadiness))
            middle = statistics.median(b for b, _ in figures), statistics.median(s for _, s in figures)
            self._middle.setdefault(key, {}).setdefault(size, {})[hosts] = middle
            counts = self._counts.setdefault(key, {})
            counts[size] = counts.get(size, 0) + 1
            shared = frozenset(part for part in parts if part.kind in SHARED)
            self._shared.setdefault(hosts, {})[key] = shared

    def common(self, key: Key, hosts: int) -> frozenset[Part]:
        """Return what hosts share and nearly all trials that reach the reference go through.

        They cannot tell how fast that is: it may be what they all have to wait for.
        """
        reference = self.of(key, hosts)
        return reference.common if reference is not None else frozenset()

    def of(self, key: Key, hosts: int) -> Reference | None:
        """Return what a sweep among so many hosts should reach; None: too few are alike."""
        margin = hosts * ALIKE_SIZE
        counts = self._counts.get(key, {})
        count = sum(n for size, n in counts.items() if abs(size - hosts) <= margin)
        known = self._known.get((key, hosts))
        if known is None or count > (known[0] * STANDS_UNTIL if known[0] >= STANDS_FROM else known[0]):
            near = [
                (*middle, self._shared[group][key])
                for size, groups in self._middle.get(key, {}).items()
                if abs(size - hosts) <= margin
                for group, middle in groups.items()
            ]
            known = self._known[key, hosts] = count, _reference(near)
        return known[1]


def _reference(figures: Sequence[tuple[float, float, frozenset[Part]]]) -> Reference | None:
    """Return the fastest level that several figures agree on."""
    if len(figures) < 3:
        return None
    speeds = sorted(busbw for busbw, _, _ in figures if busbw > 0)
    few = len(speeds) < FEW_ALIKE  # of three pairs among three hosts a bad host leaves one that is well
    needed = 1 if few else max(2, math.ceil(AGREE_SHARE_MIN * len(figures)))
    for last in range(len(speeds) - 1, needed - 2, -1):
        first = bisect.bisect_left(speeds, speeds[last] * math.exp(-AGREE_WITHIN))
        if last - first + 1 >= needed:
            level = statistics.median(speeds[first : last + 1])
            reaching = len(speeds) - bisect.bisect_left(speeds, level * math.exp(-SLOW_FROM))
            usual = statistics.median(steadiness for _, steadiness, _ in figures)
            return Reference(
                busbw_gbps=level,
                steadiness=usual,
                unrest=1.4826 * statistics.median(abs(steadiness - usual) for _, steadiness, _ in figures),
                is_trusted=reaching >= TRUST_SHARE_MIN * len(figures),
                common=_common([parts for busbw, _, parts in figures if busbw >= speeds[first]]),
            )
    return None


def _common(parts: Sequence[frozenset[Part]]) -> frozenset[Part]:
    """Return what nearly all trials go through; a few may be as slow for a reason of their own."""
    counts = Counter(part for found in parts for part in found)
    return frozenset(part for part, count in counts.items() if count >= COMMON_SHARE * len(parts))

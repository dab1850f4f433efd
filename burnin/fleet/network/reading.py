"""What one trial says: how much slower than the like of it, or what else went wrong.

The reference is the fastest level that several trials alike reach: parts can only slow a collective down, so
where most groups hold a bad part the median is a figure of sick groups. Only complete sweeps are judged, each
size by itself, the worst iteration beside the mean; never the best of anything.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.attribution import FAILED, HUNG, SLOW, SOCKETS, WRONG
from burnin.fleet.network.part import SHARED, Part, parts_of, path_class, scope_of
from burnin.fleet.network.trial import FULL, RAIL, Sweep, TrialResult
from burnin.fleet.topology import Topology

# Levels of badness, so that one order holds for all: a trial is as bad as the worst part in it. Slowness is
# the natural logarithm of the ratio to the reference and stays below the others. What failed and what hung
# are equal: whichever came first ended the trial, and hid the other.
LEVEL = {SOCKETS: 20.0, WRONG: 30.0, FAILED: 40.0, HUNG: 40.0}
SLOW_FROM = 0.08  # 8 %: a practical floor above what trials alike differ by on healthy fabrics (1 to 2 %)
# What is tolerated where latency counts, and over gloo on cores that others use too. Chosen, not measured.
LARGE_BYTES, MEDIUM_BYTES = 1 << 25, 1 << 20
MEDIUM_FROM, SMALL_FROM, GLOO_FROM = 0.25, 0.7, 1.4
SAME_LEVEL = 0.07  # levels closer than this are not told apart
DIP_FROM = 0.22  # of the worst iteration below what is usual
AGREE_WITHIN = 0.05  # trials that reach the reference
AGREE_SHARE_MIN, TRUST_SHARE_MIN = 0.05, 0.25
FEW_ALIKE = 6
GLOO = "gloo"
ALIKE_SIZE = 1 / 8  # numbers of hosts that differ by less are alike


@dataclass(frozen=True, slots=True, kw_only=True)
class BusbwFloor:
    """What a collective must reach whatever the others do."""

    collective: str
    size_bytes: int
    hosts_min: int
    hosts_max: int
    busbw_gbps_min: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one trial says."""

    result: TrialResult
    hosts: frozenset[str]
    # What it puts to the test, without what all trials alike have in common: they cannot tell how fast it is.
    parts: frozenset[Part]
    level: float | None  # None: nothing to compare with
    fault: str = ""  # empty: none
    dip: bool = False  # an iteration was far below what is usual
    common: frozenset[Part] = field(default=frozenset())
    is_main: bool = True  # over all rails that are in question, so that it speaks about the whole path
    blamed: frozenset[str] = field(default=frozenset())

    @property
    def is_good(self) -> bool:
        """Whether it shows that all its parts are well."""
        return self.level is not None and not self.fault and not self.dip

    @property
    def works(self) -> bool:
        """Whether it came to its end with right results, at whatever speed."""
        return self.result.state == "done" and self.result.is_complete and self.fault in ("", SLOW)

    @property
    def is_bad(self) -> bool:
        """Whether something in it is not."""
        return bool(self.fault)


_Key = tuple[str, int, str, str, str, int]


Facts = dict[str, tuple[frozenset[str], frozenset[Part], tuple[_Key, ...]]]


def read_all(
    results: Iterable[TrialResult],
    topology: Topology,
    floors: Sequence[BusbwFloor] = (),
    *,
    main: str = FULL,
    facts: Facts | None = None,
) -> list[Reading]:
    """Return a reading for every result, in its order; ``facts`` keeps what is the same in every call.

    ``main`` is the path that stands for the whole one, where some rails are left out.
    """
    results = list(results)
    facts = {} if facts is None else facts
    for result in results:
        if result.trial.id not in facts:
            keys = tuple(_key(result, sweep, topology) for sweep in result.sweeps)
            facts[result.trial.id] = frozenset(result.trial.hosts), parts_of(result.trial, topology), keys
    references = _References(results, facts)
    return [_read(result, facts, references, floors, main) for result in results]


def _read(
    result: TrialResult, facts: Facts, references: _References, floors: Sequence[BusbwFloor], main: str
) -> Reading:
    trial = result.trial
    is_about_rails = trial.path.startswith(RAIL)
    floors = () if is_about_rails else floors  # they are stated for all rails together
    hosts, parts, keys = facts[trial.id]
    level, fault, dip = _judge(result, keys, references, floors)
    common = references.common(keys[0], len(hosts)) if keys and fault in ("", SLOW) else frozenset()
    return Reading(
        result=result,
        hosts=hosts,
        parts=parts - common,
        common=common,
        level=level,
        fault=fault,
        dip=dip,
        is_main=not is_about_rails or trial.path == main,
        blamed=frozenset(result.blamed) & hosts,
    )


def _judge(
    result: TrialResult, keys: Sequence[_Key], references: _References, floors: Sequence[BusbwFloor]
) -> tuple[float | None, str, bool]:
    if result.state == "not run":
        return None, "", False
    if result.state != "done":
        fault = HUNG if result.state == "hung" else FAILED
        return LEVEL[fault], fault, False
    if any(sweep.wrong_elements for sweep in result.sweeps):
        return LEVEL[WRONG], WRONG, False
    if result.transport is not None and "socket" in result.transport.lower():
        return LEVEL[SOCKETS], SOCKETS, False
    if not result.is_complete or not result.sweeps:
        return None, "", False  # a verdict on a part of a sweep sends the search down the wrong half
    return _judge_speed(result, keys, references, floors)


def _judge_speed(
    result: TrialResult, keys: Sequence[_Key], references: _References, floors: Sequence[BusbwFloor]
) -> tuple[float | None, str, bool]:
    levels: list[float] = []
    is_known, dip = True, False
    for sweep, key in zip(result.sweeps, keys, strict=True):
        reference = references.of(key, len(result.trial.hosts))
        floor = _floor(sweep, len(result.trial.hosts), floors)
        if floor is not None and sweep.busbw_gbps < floor:
            levels.append(max(SLOW_FROM, math.log(floor / max(sweep.busbw_gbps, 1e-9))))
        if reference is None:
            is_known = is_known and floor is not None
            continue
        level = math.log(reference.busbw_gbps / max(sweep.busbw_gbps, 1e-9))
        is_slow = _excess(level, sweep, result.transport) >= SLOW_FROM
        is_known = is_known and (reference.is_trusted or is_slow or floor is not None)
        levels.append(_excess(level, sweep, result.transport))
        steadiness = math.log(max(sweep.busbw_worst_gbps, 1e-9) / max(sweep.busbw_gbps, 1e-9))
        is_large = sweep.size_bytes >= LARGE_BYTES and result.transport != GLOO
        dip = dip or (is_large and steadiness < reference.steadiness - max(DIP_FROM, 6 * reference.unrest))
    worst = max(levels, default=0.0)
    if worst >= SLOW_FROM:
        return worst, SLOW, dip
    return (worst if is_known else None), "", dip


def _excess(level: float, sweep: Sweep, transport: str | None) -> float:
    """Return how slow a sweep is, counted from what is tolerated at its size, so that one line serves all."""
    if transport == GLOO:
        tolerated = GLOO_FROM
    elif sweep.size_bytes >= LARGE_BYTES:
        tolerated = SLOW_FROM
    else:
        tolerated = MEDIUM_FROM if sweep.size_bytes >= MEDIUM_BYTES else SMALL_FROM
    return level - (tolerated - SLOW_FROM)


def _floor(sweep: Sweep, hosts: int, floors: Sequence[BusbwFloor]) -> float | None:
    found = [
        floor.busbw_gbps_min
        for floor in floors
        if (floor.collective, floor.size_bytes) == (sweep.collective, sweep.size_bytes)
        and floor.hosts_min <= hosts <= floor.hosts_max
    ]
    return max(found, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    busbw_gbps: float
    steadiness: float  # usual logarithm of the worst iteration over the mean
    unrest: float  # what that usually differs by, robustly
    is_trusted: bool  # enough of the trials alike reach it


class _References:
    """What healthy trials reach, from all trials alike."""

    def __init__(self, results: Sequence[TrialResult], facts: Facts) -> None:
        self._figures: dict[_Key, dict[int, dict[frozenset[str], list[tuple[float, float]]]]] = {}
        self._parts: dict[_Key, dict[int, frozenset[Part]]] = {}
        self._common: dict[tuple[_Key, int], frozenset[Part]] = {}
        self._known: dict[tuple[_Key, int], _Reference | None] = {}
        for result in results:
            if result.state != "done" or not result.is_complete:
                continue
            for sweep, key in zip(result.sweeps, facts[result.trial.id][2], strict=True):
                steadiness = math.log(max(sweep.busbw_worst_gbps, 1e-9) / max(sweep.busbw_gbps, 1e-9))
                by_size = self._figures.setdefault(key, {})
                hosts, parts, _ = facts[result.trial.id]
                by_group = by_size.setdefault(len(hosts), {})
                by_group.setdefault(hosts, []).append((sweep.busbw_gbps, steadiness))
                self._note_parts(key, len(hosts), parts)

    def _note_parts(self, key: _Key, hosts: int, parts: frozenset[Part]) -> None:
        by_size = self._parts.setdefault(key, {})
        shared = by_size[hosts] if hosts in by_size else frozenset(p for p in parts if p.kind in SHARED)
        by_size[hosts] = shared & parts

    def common(self, key: _Key, hosts: int) -> frozenset[Part]:
        """Return what hosts share and every trial alike goes through."""
        if (key, hosts) not in self._common:
            margin = hosts * ALIKE_SIZE
            found = [p for size, p in self._parts.get(key, {}).items() if abs(size - hosts) <= margin]
            self._common[key, hosts] = frozenset.intersection(*found) if found else frozenset()
        return self._common[key, hosts]

    def of(self, key: _Key, hosts: int) -> _Reference | None:
        """Return what a sweep among so many hosts should reach; None: too few are alike."""
        if (key, hosts) not in self._known:
            margin = hosts * ALIKE_SIZE
            # A group counts once, however often it ran: it must not become its own reference.
            near = [
                (statistics.median(b for b, _ in figures), statistics.median(s for _, s in figures))
                for size, groups in self._figures.get(key, {}).items()
                if abs(size - hosts) <= margin
                for figures in groups.values()
            ]
            self._known[key, hosts] = _reference(near)
        return self._known[key, hosts]


def _key(result: TrialResult, sweep: Sweep, topology: Topology) -> _Key:
    """Return what must be equal for two sweeps to be alike, but for the number of hosts."""
    trial = result.trial
    models = "+".join(sorted({topology.model.get(host, "") for host in trial.hosts}))
    ranks = round(sweep.ranks / len(trial.hosts) * 100)
    return (
        sweep.collective,
        sweep.size_bytes,
        path_class(trial.path),
        scope_of(trial, topology),
        models,
        ranks,
    )


def _reference(figures: Sequence[tuple[float, float]]) -> _Reference | None:
    """Return the fastest level that several figures agree on."""
    if len(figures) < 3:
        return None
    speeds = sorted(busbw for busbw, _ in figures if busbw > 0)
    few = len(speeds) < FEW_ALIKE  # of three pairs among three hosts a bad host leaves one that is well
    needed = 1 if few else max(2, math.ceil(AGREE_SHARE_MIN * len(figures)))
    for last in range(len(speeds) - 1, needed - 2, -1):
        first = bisect.bisect_left(speeds, speeds[last] * math.exp(-AGREE_WITHIN))
        if last - first + 1 >= needed:
            level = statistics.median(speeds[first : last + 1])
            reaching = len(speeds) - bisect.bisect_left(speeds, level * math.exp(-SLOW_FROM))
            usual = statistics.median(steadiness for _, steadiness in figures)
            return _Reference(
                busbw_gbps=level,
                steadiness=usual,
                unrest=1.4826 * statistics.median(abs(steadiness - usual) for _, steadiness in figures),
                is_trusted=reaching >= TRUST_SHARE_MIN * len(figures),
            )
    return None

"""What one trial says: how much slower than the like of it, or what else went wrong.

Only complete sweeps are judged, each size by itself, the worst iteration beside the mean; never the best of
anything.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.attribution import FAILED, HUNG, SLOW, SOCKETS, WRONG
from burnin.fleet.network.part import Part, parts_of, path_class, scope_of
from burnin.fleet.network.references import SLOW_FROM, Key, References
from burnin.fleet.network.trial import FULL, RAIL, Sweep, TrialResult
from burnin.fleet.topology import Topology

# Levels of badness, so that one order holds for all: a trial is as bad as the worst part in it. Slowness is
# the natural logarithm of the ratio to the reference and stays below the others. What failed and what hung
# are equal: whichever came first ended the trial, and hid the other.
LEVEL = {SOCKETS: 20.0, WRONG: 30.0, FAILED: 40.0, HUNG: 40.0}
# What is tolerated where latency counts, and over gloo on cores that others use too. Chosen, not measured.
LARGE_BYTES, MEDIUM_BYTES = 1 << 25, 1 << 20
MEDIUM_FROM, SMALL_FROM, GLOO_FROM = 0.25, 0.7, 1.4
SAME_LEVEL = 0.07  # levels closer than this are not told apart
DIP_FROM = 0.22  # of the worst iteration below what is usual
GLOO = "gloo"


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


Facts = tuple[TrialResult, frozenset[str], frozenset[Part], tuple[Key, ...]]
Bucket = tuple[tuple[Key, ...], int]


@dataclass(slots=True)
class Reader:
    """Judges results as they come, and earlier ones again where what they are compared with has moved."""

    topology: Topology
    floors: Sequence[BusbwFloor] = ()
    main: str = FULL  # the path that stands for the whole one, where some rails are left out
    readings: list[Reading] = field(default_factory=list)
    _facts: list[Facts] = field(default_factory=list)
    _references: References = field(default_factory=References)
    # Results that are judged by the same references, and those by which they were judged last.
    _buckets: dict[Bucket, list[int]] = field(default_factory=dict)
    _told: dict[Bucket, tuple[object, ...]] = field(default_factory=dict)

    def read(self, results: Iterable[TrialResult]) -> bool:
        """Add readings of some more results, in their order; say whether earlier ones changed."""
        first = len(self.readings)
        for index, result in enumerate(results, first):
            hosts, parts = frozenset(result.trial.hosts), parts_of(result.trial, self.topology)
            keys = tuple(_key(result, sweep, self.topology) for sweep in result.sweeps)
            self._facts.append((result, hosts, parts, keys))
            self._buckets.setdefault((keys, len(hosts)), []).append(index)
            if result.state == "done" and result.is_complete:
                self._references.add(result, keys, hosts, parts)
        judged: dict[int, Reading] = {}
        for bucket, members in self._buckets.items():
            told = self._references_of(bucket)
            has_moved = self._told.get(bucket) != told
            self._told[bucket] = told
            wanted = members if has_moved else members[bisect.bisect_left(members, first) :]
            judged |= {index: self._read(*self._facts[index]) for index in wanted}
        for index, reading in sorted(judged.items()):
            if index < first:
                self.readings[index] = reading
            else:
                self.readings.append(reading)
        return any(index < first for index in judged)

    def _references_of(self, bucket: Bucket) -> tuple[object, ...]:
        keys, hosts = bucket
        common = self._references.common(keys[0], hosts) if keys else None
        return common, *(self._references.of(key, hosts) for key in keys)

    def _read(
        self, result: TrialResult, hosts: frozenset[str], parts: frozenset[Part], keys: Sequence[Key]
    ) -> Reading:
        is_about_rails = result.trial.path.startswith(RAIL)
        floors = () if is_about_rails else self.floors  # they are stated for all rails together
        level, fault, dip = _judge(result, keys, self._references, floors)
        is_compared = keys and fault in ("", SLOW)
        common = self._references.common(keys[0], len(hosts)) if is_compared else frozenset()
        return Reading(
            result=result,
            hosts=hosts,
            parts=parts - common,
            common=common,
            level=level,
            fault=fault,
            dip=dip,
            is_main=not is_about_rails or result.trial.path == self.main,
            blamed=frozenset(result.blamed) & hosts,
        )


def read_all(
    results: Iterable[TrialResult], topology: Topology, floors: Sequence[BusbwFloor] = ()
) -> list[Reading]:
    """Return a reading for every result, in its order."""
    reader = Reader(topology, floors)
    reader.read(results)
    return reader.readings


def _judge(
    result: TrialResult, keys: Sequence[Key], references: References, floors: Sequence[BusbwFloor]
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
    result: TrialResult, keys: Sequence[Key], references: References, floors: Sequence[BusbwFloor]
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


def _key(result: TrialResult, sweep: Sweep, topology: Topology) -> Key:
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

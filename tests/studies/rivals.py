"""How other tools look for a bad node, on the same simulated fleets.

Written after what their sources and design records say (cluster-readiness-engine ADR 055 and 056 with
``diagnose.go``; ROCm/cvs pull request 280), weak points included. They run the all-reduce only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.designs import tournament
from burnin.fleet.network.trial import ALL_REDUCE, Sweep, Trial, TrialResult
from burnin.fleet.simulation.fabric import (
    NIC_BUSBW_GBPS,
    NIC_PAIR_BUSBW_GBPS,
    SIZES_BYTES,
    SimulatedNetwork,
)

CVS_FLOOR_GBPS = 300.0  # pairwise_min_bw, as shipped
FLOOR_SHARE = 0.92  # of what a healthy group of that size reaches, for those that leave the floor to the user
Group = tuple[str, ...]


@dataclass(slots=True)
class Told:
    """What a tool says at its end, and what it took."""

    subjects: set[str] = field(default_factory=set)  # accused
    groups: list[tuple[Group, Group]] = field(default_factory=list)  # "between these two something is wrong"
    rounds: int = 0
    minutes: float = 0.0
    node_minutes: float = 0.0


_WELL = (
    Sweep(
        collective=ALL_REDUCE,
        size_bytes=SIZES_BYTES[-1],
        ranks=16,
        iterations=20,
        busbw_gbps=NIC_PAIR_BUSBW_GBPS,
        busbw_worst_gbps=NIC_PAIR_BUSBW_GBPS,
        wrong_elements=0,
    ),
)


@dataclass(slots=True)
class _Bench:
    network: SimulatedNetwork
    floor_share: float | None
    told: Told = field(default_factory=Told)
    _count: int = 0

    def run(self, groups: Sequence[Group]) -> list[TrialResult]:
        """Run groups side by side, in as many rounds as it takes that no host is in two at a time."""
        results: dict[int, TrialResult] = {}
        left = list(enumerate(groups))
        while left:
            taken: set[str] = set()
            now: list[tuple[int, Group]] = []
            later: list[tuple[int, Group]] = []
            for item in left:
                is_free = taken.isdisjoint(item[1])
                (now if is_free else later).append(item)
                taken |= set(item[1]) if is_free else set()
            left = later
            found = [self._run(self._trial(group)) for _, group in now]
            self.told.rounds += 1
            self.told.minutes += max(r.seconds for r in found) / 60
            self.told.node_minutes += sum(r.seconds * len(r.trial.hosts) for r in found) / 60
            results |= {index: result for (index, _), result in zip(now, found, strict=True)}
        return [results[index] for index in range(len(groups))]

    def pass_or_fail(self, groups: Sequence[Group]) -> list[bool]:
        """Say of each group whether it is well, as a tool does that judges the best figure of all."""
        return [self.is_well(result) for result in self.run(groups)]

    def is_well(self, result: TrialResult) -> bool:
        """Exit status, checked results, and the peak against a floor where one is set."""
        if result.state != "done" or any(sweep.wrong_elements for sweep in result.sweeps):
            return False
        usual = NIC_PAIR_BUSBW_GBPS if len(result.trial.hosts) == 2 else NIC_BUSBW_GBPS
        peak = max(sweep.busbw_gbps for sweep in result.sweeps)
        return self.floor_share is None or peak >= self.floor_share * usual

    def _run(self, trial: Trial) -> TrialResult:
        """Run a trial; of two hosts with nothing bad between them it is known beforehand what comes of it.

        They are well: the noise of a pair is a tenth of what the floor allows.
        """
        if len(trial.hosts) > 2 or self.network.meets_fault(trial):
            return self.network.run(trial)
        return TrialResult(
            trial=trial,
            state="done",
            sweeps=_WELL,
            is_complete=True,
            seconds=self.network.healthy_seconds(trial),
        )

    def _trial(self, group: Group) -> Trial:
        self._count += 1
        return Trial(
            id=f"t{self._count}",
            round=self.told.rounds + 1,
            design="",
            hosts=group,
            collectives=(ALL_REDUCE,),
        )


def run_diagnose(network: SimulatedNetwork, *, floor_share: float | None) -> Told:
    """NVCRE's ``diagnose``: groups by sorted name, one of each, bisection, cross-boundary, confirmation."""
    bench = _Bench(network, floor_share)
    names = sorted(network.topology.hosts)
    size = math.ceil(math.sqrt(len(names)))
    groups = [tuple(names[start : start + size]) for start in range(0, len(names), size)]
    wells = bench.pass_or_fail(groups)
    healthy = [host for group, well in zip(groups, wells, strict=True) if well for host in group]
    failed = [group for group, well in zip(groups, wells, strict=True) if not well]
    speakers = tuple(group[0] for group, well in zip(groups, wells, strict=True) if well)
    if len(speakers) > 1 and not bench.pass_or_fail([speakers])[0]:
        failed.append(speakers)
    suspects = _bisect(bench, failed, healthy)
    _confirm(bench, suspects, healthy)
    return bench.told


def _bisect(bench: _Bench, failed: list[Group], healthy: list[str]) -> list[str]:
    suspects: list[str] = []
    while failed:
        halves = [half for group in failed for half in _halves(group)]
        spare = [host for host in healthy if not any(host in group for group in failed)]
        padded = [(*half, spare.pop()) if len(half) == 1 and spare else half for half in halves]
        wells = _run(bench, padded)
        following: list[Group] = []
        for index, group in enumerate(failed):
            first, second = halves[2 * index], halves[2 * index + 1]
            well_first, well_second = wells[2 * index], wells[2 * index + 1]
            if well_first and well_second:
                if len(group) > 2:
                    _cross(bench, first, second)
                continue
            for half, well in ((first, well_first), (second, well_second)):
                if well:
                    healthy += half
                elif len(half) <= 2:
                    suspects += half
                else:
                    following.append(half)
        failed = following
    return sorted(set(suspects))


def _run(bench: _Bench, groups: list[Group]) -> list[bool]:
    runnable = [group for group in groups if len(group) > 1]
    found = dict(zip(runnable, bench.pass_or_fail(runnable), strict=True)) if runnable else {}
    return [found.get(group, False) for group in groups]


def _halves(group: Group) -> tuple[Group, Group]:
    middle = (len(group) + 1) // 2
    return group[:middle], group[middle:]


def _cross(bench: _Bench, a: Group, b: Group) -> None:
    """Mix first halves and second halves; both passing is "transient" and cleared."""
    for _ in range(max(1, math.ceil(math.log2(min(len(a), len(b)) or 1)))):
        (a1, a2), (b1, b2) = _halves(a), _halves(b)
        mixes = [(x, y) for x, y in ((a1, b1), (a2, b2)) if x and y]
        wells = bench.pass_or_fail([(*x, *y) for x, y in mixes])
        bad = [mix for mix, well in zip(mixes, wells, strict=True) if not well]
        if not bad:
            return
        a, b = bad[0]
        if len(a) == 1 and len(b) == 1:
            break
    bench.told.groups.append((a, b))


def _confirm(bench: _Bench, suspects: list[str], healthy: list[str]) -> None:
    partners = [host for host in dict.fromkeys(healthy) if host not in suspects]
    if not partners:  # then there is no confirmation at all
        bench.told.subjects |= {f"host:{host}" for host in suspects}
        return
    pairs = list(zip(suspects, itertools.cycle(partners), strict=False))
    for (suspect, _), well in zip(pairs, bench.pass_or_fail(pairs) if pairs else [], strict=True):
        if not well:
            bench.told.subjects.add(f"host:{suspect}")


def run_growing_ring(network: SimulatedNetwork) -> Told:
    """CVS: the first host with each other, then a ring that grows by one; all one after another."""
    bench = _Bench(network, None)
    reference, *others = network.topology.hosts
    survivors = []
    for host in others:
        if bench.run([(reference, host)])[0].state == "done":  # a clean exit is all that is looked at
            survivors.append(host)
        else:
            bench.told.subjects.add(f"host:{host}")
    ring: Group = (reference,)
    for host in survivors:
        result = bench.run([(*ring, host)])[0]
        peak = max((sweep.busbw_gbps for sweep in result.sweeps), default=0.0)
        if result.state == "done" and peak >= CVS_FLOOR_GBPS:
            ring = (*ring, host)
        else:
            bench.told.subjects.add(f"host:{host}")  # never tried again
    return bench.told


def run_all_pairs(network: SimulatedNetwork, *, floor_share: float) -> Told:
    """Every pair, in a tournament; a host that fails with half of its peers is bad, else the pair is."""
    bench = _Bench(network, floor_share)
    hosts = network.topology.hosts
    failed: dict[str, set[str]] = {host: set() for host in hosts}
    for pairs in tournament(hosts):
        for (a, b), well in zip(pairs, bench.pass_or_fail(pairs), strict=True):
            if not well:
                failed[a].add(b)
                failed[b].add(a)
    bad = {host for host, peers in failed.items() if len(peers) >= (len(hosts) - 1) / 2}
    bench.told.subjects |= {f"host:{host}" for host in bad}
    for host, peers in failed.items():
        bench.told.subjects |= {f"link:{host}-{p}" for p in peers - bad if host < p and host not in bad}
    return bench.told

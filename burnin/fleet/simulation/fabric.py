"""The network of a simulated fleet: answers rounds of trials on a clock of its own.

A collective runs at the speed of the slowest part that its data goes through. The ring of an all-reduce
touches neighbours only, so a bad pair shows there when it is adjacent; the pairwise exchange touches every
pair.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.depth import DEPTHS
from burnin.fleet.network.part import DOMAIN, INSIDE, scope_of
from burnin.fleet.network.trial import PAIRWISE, RAIL, Sweep, Trial, TrialResult
from burnin.fleet.simulation.fault import (
    BAD_LEAF,
    BAD_RAIL,
    BAD_UPLINK,
    CORRUPTS,
    CRASHES,
    DEAD,
    FLAPPING,
    HANGS,
    PAIR_DEAD,
    PAIR_KINDS,
    SLOW_GPU,
    SLOW_NIC,
    SOCKETS_ONLY,
    Fault,
)
from burnin.fleet.topology import Topology

START_S = 20.0  # processes start, libraries load, ranks meet
SIZES_STOOD_FOR = 2  # each simulated size stands for so many of a real trial, from 32 MiB on
SMALLER_SHARE = 1.0  # of that time a real trial spends on smaller sizes as well, which are not simulated
LIMIT_S = 240.0  # after which a trial that hangs is ended
SIZES_BYTES = (1 << 28, 1 << 32)
# GB/s of bus bandwidth: H100 hosts with eight adapters of 400 Gb/s, GB200 racks; published results scatter
# around.
NIC_BUSBW_GBPS, NIC_PAIR_BUSBW_GBPS, NVLINK_BUSBW_GBPS, INSIDE_BUSBW_GBPS = 365.0, 480.0, 840.0, 475.0
SMALL_SHARE = 0.72  # of it that the smaller size reaches
HOST_SPREAD, TRIAL_SPREAD, SWEEP_SPREAD = 0.006, 0.008, 0.006
WORST_USUAL, WORST_SPREAD = (
    0.035,
    0.012,
)  # how far the slowest iteration is below the mean, on a healthy fleet
JITTER_SHARE = 0.001  # of healthy trials in which something of the system takes an iteration's time
DIP_S = 0.5
SOCKETS_SPEED = 0.12


@dataclass(slots=True)
class SimulatedNetwork:
    """A ``RoundRunner``."""

    topology: Topology
    faults: Sequence[Fault]
    seed: int
    ranks_per_host: int = 8
    sweep_s: float = SIZES_STOOD_FOR * DEPTHS["intake"].length_s
    clock_s: float = 0.0
    _spread: dict[str, float] = field(default_factory=dict)
    _by_host: dict[str, list[Fault]] = field(default_factory=dict)
    _shared: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(f"{self.seed} hosts")
        self._spread = {host: rng.gauss(0, HOST_SPREAD) for host in self.topology.hosts}
        for fault in self.faults:
            for host in fault.hosts[:1] if fault.kind not in PAIR_KINDS else fault.hosts:
                self._by_host.setdefault(host, []).append(fault)
        self._shared = [fault for fault in self.faults if fault.kind in (BAD_LEAF, BAD_UPLINK, BAD_RAIL)]

    def __call__(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Run the trials of a round side by side; the clock goes on by the longest."""
        hosts = [host for trial in trials for host in trial.hosts]
        assert len(hosts) == len(set(hosts)), "a host is in two trials of one round"
        results = [self.run(trial) for trial in trials]
        self.clock_s += max((result.seconds for result in results), default=0.0)
        return results

    def meets_fault(self, trial: Trial) -> bool:
        """Say whether anything that is bad is in the way of a trial's data."""
        return any(True for _ in self._faults_met(trial))

    def healthy_seconds(self, trial: Trial) -> float:
        """Return how long a trial takes that meets no fault."""
        sweeps = len(trial.collectives) * len(SIZES_BYTES)
        return START_S + (1 + SMALLER_SHARE) * self.sweep_s * sweeps

    def run(self, trial: Trial) -> TrialResult:
        """Run one trial; the same trial of the same fleet gives the same result."""
        rng = random.Random(f"{self.seed} {trial.id} {trial.hosts} {trial.path}")
        met = list(self._faults_met(trial))
        ended = _ended_early(trial, met, rng)
        if ended is not None:
            return ended
        uses_nics = scope_of(trial, self.topology) not in (INSIDE, DOMAIN)
        is_on_sockets = uses_nics and any(fault.kind == SOCKETS_ONLY for fault in met)
        shift = rng.gauss(0, TRIAL_SPREAD)
        is_jittery = rng.random() < JITTER_SHARE
        sweeps = []
        for collective in trial.collectives:
            for size_bytes in SIZES_BYTES:
                speed = self._speed(trial, collective, met)
                sweeps.append(self._sweep(trial, collective, size_bytes, speed, shift, met, rng))
        if is_jittery:
            sweeps[-1] = _with_worst(sweeps[-1], rng.uniform(0.3, 0.75))
        return TrialResult(
            trial=trial,
            state="done",
            sweeps=tuple(sweeps),
            is_complete=True,
            transport="NET/Socket" if is_on_sockets else "NET/IB" if uses_nics else "P2P",
            seconds=self.healthy_seconds(trial),
        )

    def _faults_met(self, trial: Trial) -> Iterator[Fault]:
        """Yield the faults that the data of a trial meets."""
        members = set(trial.hosts)
        uses_nics = scope_of(trial, self.topology) not in (INSIDE, DOMAIN)
        rails = _rails_used(trial)
        for host in trial.hosts:
            for fault in self._by_host.get(host, ()):
                if fault.kind in PAIR_KINDS:
                    if uses_nics and set(fault.hosts) <= members and host == fault.hosts[0]:
                        yield fault
                elif fault.kind in (SLOW_NIC, FLAPPING, SOCKETS_ONLY, CORRUPTS):
                    if uses_nics and (rails is None or fault.rail is None or fault.rail in rails):
                        yield fault
                elif len(trial.hosts) > 1 or fault.kind not in (HANGS, CRASHES):
                    yield fault
        if uses_nics:
            yield from self._shared_faults(trial, rails)

    def _shared_faults(self, trial: Trial, rails: set[int] | None) -> Iterator[Fault]:
        if not self._shared:
            return
        fabrics = {self.topology.fabric.get(host) for host in trial.hosts}
        switches = {name for host in trial.hosts for name in self.topology.rails.get(host, ())}
        for fault in self._shared:
            on_rail = rails is None or fault.rail is None or fault.rail in rails
            is_met = {
                BAD_LEAF: on_rail and (fault.switch in switches or fault.switch in fabrics),
                BAD_UPLINK: len(fabrics) > 1 and fault.switch in fabrics,
                BAD_RAIL: on_rail,
            }
            if is_met.get(fault.kind, False):
                yield fault

    def _speed(self, trial: Trial, collective: str, met: Sequence[Fault]) -> float:
        """Return the share of the healthy speed that the slowest part leaves; dips are drawn per sweep."""
        speed = min(math.exp(self._spread[host]) for host in trial.hosts)
        for fault in met:
            if fault.kind in PAIR_KINDS:
                if collective == PAIRWISE or _is_adjacent(trial, fault):
                    speed = min(speed, fault.speed)
            elif fault.kind == SOCKETS_ONLY:
                speed = min(speed, SOCKETS_SPEED)
            elif fault.kind in (SLOW_GPU, SLOW_NIC, BAD_LEAF, BAD_UPLINK, BAD_RAIL):
                speed = min(speed, fault.speed)
        return speed

    def _sweep(
        self,
        trial: Trial,
        collective: str,
        size_bytes: int,
        speed: float,
        shift: float,
        met: Sequence[Fault],
        rng: random.Random,
    ) -> Sweep:
        usual = self._usual(trial, collective) * (SMALL_SHARE if size_bytes == SIZES_BYTES[0] else 1.0)
        busbw = usual * speed * math.exp(shift + rng.gauss(0, SWEEP_SPREAD))
        worst = busbw * math.exp(-abs(rng.gauss(WORST_USUAL, WORST_SPREAD)))
        for fault in met:
            dips = _poisson(rng, self.sweep_s / fault.every_s) if fault.kind == FLAPPING else 0
            if dips:
                lost_s = min(dips * DIP_S, self.sweep_s) * (1 - fault.speed)
                busbw *= 1 - lost_s / self.sweep_s
                worst = min(worst, busbw * fault.speed)
        corrupt = any(fault.kind == CORRUPTS for fault in met)
        ranks = len(trial.hosts) * (
            1 if trial.path.count(",") == 0 and RAIL in trial.path else self.ranks_per_host
        )
        return Sweep(
            collective=collective,
            size_bytes=size_bytes,
            ranks=ranks,
            iterations=max(20, round(self.sweep_s * 1e9 * busbw / size_bytes)),
            busbw_gbps=busbw,
            busbw_worst_gbps=worst,
            wrong_elements=rng.randrange(1, 5000) if corrupt else 0,
        )

    def _usual(self, trial: Trial, collective: str) -> float:
        scope = scope_of(trial, self.topology)
        if scope == INSIDE:
            return INSIDE_BUSBW_GBPS
        if scope == DOMAIN:
            return NVLINK_BUSBW_GBPS
        base = NIC_PAIR_BUSBW_GBPS if len(trial.hosts) == 2 else NIC_BUSBW_GBPS
        base *= 0.6 if collective == PAIRWISE else 1.0
        rails = _rails_used(trial)
        count = self.topology.rails_count
        return base * len(rails) / count if rails is not None and count else base


def _ended_early(trial: Trial, met: Sequence[Fault], rng: random.Random) -> TrialResult | None:
    """Return what comes of a trial that does not reach its end; None: it does."""
    kinds = {fault.kind: fault for fault in met}
    if DEAD in kinds:
        blamed = tuple(sorted(fault.hosts[0] for fault in met if fault.kind == DEAD))
        return TrialResult(trial=trial, state="lost", blamed=blamed, seconds=START_S, detail="no answer")
    if CRASHES in kinds:
        return TrialResult(trial=trial, state="failed", seconds=START_S, detail="a rank ended with status 1")
    if HANGS in kinds or _meets_dead_pair(trial, met):
        # The library's own word, where it answers: about every other time, and it names nobody for a pair.
        named = tuple(sorted(fault.hosts[0] for fault in met if fault.kind == HANGS))
        blamed = named if rng.random() < 0.5 else ()
        return TrialResult(trial=trial, state="hung", blamed=blamed, seconds=LIMIT_S, detail="no progress")
    return None


def _meets_dead_pair(trial: Trial, met: Sequence[Fault]) -> bool:
    dead = [fault for fault in met if fault.kind == PAIR_DEAD]
    return any(PAIRWISE in trial.collectives or _is_adjacent(trial, fault) for fault in dead)


def _is_adjacent(trial: Trial, fault: Fault) -> bool:
    a, b = (trial.hosts.index(host) for host in fault.hosts)
    return abs(a - b) in (1, len(trial.hosts) - 1)


def _rails_used(trial: Trial) -> set[int] | None:
    if not trial.path.startswith(RAIL):
        return None
    return {int(rail) for rail in trial.path.removeprefix(RAIL).split(",")}


def _with_worst(sweep: Sweep, share: float) -> Sweep:
    values = {name: getattr(sweep, name) for name in Sweep.__slots__}
    return Sweep(**(values | {"busbw_worst_gbps": sweep.busbw_gbps * share}))


def _poisson(rng: random.Random, mean: float) -> int:
    """Return how many dips fall into a sweep."""
    count, left = 0, rng.expovariate(1.0)
    while left < mean:
        count, left = count + 1, left + rng.expovariate(1.0)
    return count

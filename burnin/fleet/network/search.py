"""Runs rounds of trials and keeps what came of them: all that touches the world in the network stage.

Same seed and same results give the same next trials, so that a run which was cut off goes on where it
stood: what is recorded of a trial is taken instead of running it again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from burnin.fleet.network.part import NIC_SIDE, SIDES, Part, parts_of, path_class, scope_of
from burnin.fleet.network.reading import BusbwFloor, Reader, Reading
from burnin.fleet.network.solver import Evidence, weigh, weigh_more
from burnin.fleet.network.trial import ALL_REDUCE, FULL, PAIRWISE, RAIL, RoundRunner, Trial, TrialResult
from burnin.fleet.topology import Topology

CONTROLS_MIN, CONTROLS_SHARE = 4, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where the network stage stops, whatever is still open."""

    rounds_max: int | None = None  # None: what the profile says
    node_minutes_max: float | None = None  # None: no limit
    floors: tuple[BusbwFloor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A trial that is wanted."""

    design: str
    hosts: tuple[str, ...]
    path: str = FULL


@dataclass(slots=True)
class Search:
    """What was run so far, and what it says."""

    topology: Topology
    run_round: RoundRunner
    seed: int
    limits: Limits
    rounds_max: int
    recorded: Mapping[str, TrialResult] = field(default_factory=dict)
    off: frozenset[int] = frozenset()  # rails that every trial between hosts leaves out
    given: Mapping[Part, float] = field(default_factory=dict)  # how bad parts are at most, from other trials
    results: list[TrialResult] = field(default_factory=list)
    rounds: int = 0
    node_seconds: float = 0.0
    is_cut_short: bool = False
    _is_final: bool = False
    _reader: Reader | None = None
    _evidence: Evidence | None = None

    def evidence(self) -> Evidence:
        """Return what all results so far say together."""
        if self._reader is None:
            self._reader = Reader(self.topology, self.limits.floors, self.path)
        reader, first = self._reader, len(self._reader.readings)
        if self._evidence is None or first != len(self.results):
            have_moved = reader.read(self.results[first:])
            if self._evidence is None or have_moved:
                self._evidence = weigh(reader.readings, self.topology.fabric, self.given)
            else:
                self._evidence = weigh_more(self._evidence, reader.readings[first:])
        return self._evidence

    @property
    def rails(self) -> tuple[int, ...]:
        """The rails over which its trials go."""
        return tuple(rail for rail in range(self.topology.rails_count) if rail not in self.off)

    @property
    def path(self) -> str:
        """The path of each trial between hosts that is not about certain rails."""
        return RAIL + ",".join(str(rail) for rail in self.rails) if self.off else FULL

    def rng(self, purpose: str) -> random.Random:
        """Return a generator that depends on seed and round only."""
        return random.Random(f"{self.seed} {self.rounds} {purpose}")

    def allow(self, rounds: int) -> None:
        """Allow some more rounds, whatever was spent: to say what of an accused part is bad."""
        self.rounds_max = self.rounds + rounds
        self._is_final = True

    def has_room(self) -> bool:
        """Say whether one more round may run; note it when not."""
        minutes_max = self.limits.node_minutes_max
        spent = minutes_max is not None and self.node_seconds / 60 >= minutes_max
        if self._is_final:
            return self.rounds < self.rounds_max
        if spent or self.rounds >= self.rounds_max:
            self.is_cut_short = True
        return not self.is_cut_short

    def run(self, plans: Sequence[Plan]) -> dict[int, Reading]:
        """Run what is wanted, in as many rounds as it takes, with controls; readings go by number of plan."""
        wanted: dict[str, int] = {}
        since = len(self.results)
        left = list(enumerate(self._on_its_path(plan) for plan in plans))
        while left and self.has_room():
            now, left = _pack(left)
            trials = self._number([plan for _, plan in now])
            wanted |= {trial.id: index for trial, (index, _) in zip(trials, now, strict=True)}
            controls = self._number(self._controls([plan for _, plan in now]), first=len(trials))
            self._run_round([*trials, *controls])
        found = {reading.result.trial.id: reading for reading in self.evidence().readings[since:]}
        return {index: found[trial_id] for trial_id, index in wanted.items()}

    def _on_its_path(self, plan: Plan) -> Plan:
        is_about_rails = plan.path.startswith(RAIL) or len(plan.hosts) < 2
        return plan if is_about_rails or not self.off else replace(plan, path=self.path)

    def _number(self, plans: Sequence[Plan], *, first: int = 0) -> list[Trial]:
        order = self.rng("order")
        return [
            Trial(
                id=f"r{self.rounds + 1:03d}-{first + index:04d}",
                round=self.rounds + 1,
                design=plan.design,
                hosts=tuple(order.sample(plan.hosts, len(plan.hosts))),
                path=plan.path,
                collectives=(ALL_REDUCE, PAIRWISE) if len(plan.hosts) > 1 else (ALL_REDUCE,),
            )
            for index, plan in enumerate(plans)
        ]

    def _run_round(self, trials: Sequence[Trial]) -> None:
        self.rounds += 1
        known = {trial.id: self.recorded[trial.id] for trial in trials if self._is_recorded(trial)}
        missing = [trial for trial in trials if trial.id not in known]
        known |= {result.trial.id: result for result in (self.run_round(missing) if missing else ())}
        for trial in trials:
            result = known.get(trial.id) or TrialResult(trial=trial, state="not run", detail="gave no result")
            self.results.append(result)
            self.node_seconds += result.seconds * len(trial.hosts)

    def _is_recorded(self, trial: Trial) -> bool:
        result = self.recorded.get(trial.id)
        if result is None or result.state == "not run":
            return False
        was = result.trial
        return (was.hosts, was.design, was.path) == (trial.hosts, trial.design, trial.path)

    def _controls(self, plans: Sequence[Plan]) -> list[Plan]:
        """Return trials of hosts that are known to be well, so that a round of suspects has something to be
        compared with.

        Without them sick groups alike would be each other's reference. Groups of more than two are compared
        with the screening instead.
        """
        by_kind: dict[tuple[int, str, str], list[Plan]] = {}
        for plan in plans:
            trial = Trial(id="", round=0, design=plan.design, hosts=plan.hosts, path=plan.path)
            if len(plan.hosts) <= 2:
                kind = (len(plan.hosts), path_class(plan.path), scope_of(trial, self.topology))
                by_kind.setdefault(kind, []).append(plan)
        taken = {host for plan in plans for host in plan.hosts}
        controls: list[Plan] = []
        for (size, _, scope), wanting in sorted(by_kind.items()):
            count = max(CONTROLS_MIN, round(CONTROLS_SHARE * len(wanting)))
            count -= sum(all(self._is_well(host) for host in plan.hosts) for plan in wanting)
            controls += self._draw(size, scope, wanting[0].path, count, taken)
        return controls

    def _draw(self, size: int, scope: str, path: str, count: int, taken: set[str]) -> list[Plan]:
        found: list[Plan] = []
        well = [host for host in self.topology.hosts if host not in taken and self._is_well(host)]
        self.rng(f"controls {size} {scope} {path}").shuffle(well)
        for host in well:
            if len(found) >= count:
                break
            if host in taken:
                continue
            group = (host,) if size == 1 else self._pair(host, scope, path, well, taken)
            if group:
                taken |= set(group)
                found.append(Plan(design="control", hosts=group, path=path))
        return found

    def _pair(
        self, host: str, scope: str, path: str, well: Sequence[str], taken: set[str]
    ) -> tuple[str, ...]:
        for other in well:
            if other != host and other not in taken:
                trial = Trial(id="", round=0, design="", hosts=(host, other), path=path)
                is_alike = scope_of(trial, self.topology) == scope
                if is_alike and parts_of(trial, self.topology).isdisjoint(self.evidence().shared):
                    return trial.hosts
        return ()

    def _is_well(self, host: str) -> bool:
        evidence = self.evidence()
        parts = [Part(kind, host) for kind in SIDES]
        return evidence.is_good(Part(NIC_SIDE, host)) and not any(part in evidence.accused for part in parts)


def _pack(plans: Sequence[tuple[int, Plan]]) -> tuple[list[tuple[int, Plan]], list[tuple[int, Plan]]]:
    """Return what fits into one round, in which no host is twice, and what is left."""
    taken: set[str] = set()
    now: list[tuple[int, Plan]] = []
    left: list[tuple[int, Plan]] = []
    for item in plans:
        hosts = item[1].hosts
        if taken.isdisjoint(hosts):
            taken |= set(hosts)
            now.append(item)
        else:
            left.append(item)
    return now, left

"""The study of attribution: simulated fleets with known faults, through our isolation and those of others.

``make study-attribution`` writes docs/studies/attribution.md. The faults are drawn by burnin/fleet/simulation
and know nothing of who will look for them. Each fleet that is done is kept in a file at once: a study that
was ended goes on where it stood, as long as the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from burnin.fleet.network.attribution import ACCUSED, SUSPECTED_BEHIND, NetworkOutcome
from burnin.fleet.network.isolation import isolate
from burnin.fleet.simulation.cluster import simulated_fleet
from burnin.fleet.simulation.fabric import SimulatedNetwork
from burnin.fleet.simulation.fault import (
    BAD_RAIL,
    FLAPPING,
    KINDS,
    PAIR_KINDS,
    SLOW_NIC,
    Fault,
    draw_faults,
)
from burnin.fleet.topology import Topology, topology_of
from tests.studies.rivals import FLOOR_SHARE, Told, run_all_pairs, run_diagnose, run_growing_ring

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "studies" / "attribution.md"
RESULTS = ROOT / "runs" / "study-attribution.ndjson"
SOURCES = (
    "burnin/fleet/network",
    "burnin/fleet/simulation",
    "burnin/fleet/topology.py",
    "tests/studies/rivals.py",
)
HOSTS, SHARE = 1000, 0.01
MIXED = tuple(kind for kind in KINDS if kind != BAD_RAIL)
RAIL_ONLY = (BAD_RAIL,)
SICK, HEALTHY, ONE_RAIL = "1 % of each", "healthy", "one bad rail"
# Dips that come more rarely than this, `intake` does not claim to see: 80 s of large messages hold one of
# them with 1 − exp(−80/15) = 99.5 %.
OFTEN_S = 15.0
FLAPPING_OFTEN, FLAPPING_RARELY = f"{FLAPPING}, every {OFTEN_S:.0f} s or more often", f"{FLAPPING}, rarer"


@dataclass(slots=True)
class Score:
    """What became of the faults of some fleets."""

    fleets: int = 0
    seeded: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)  # not named, behind what is accused, and listed so
    unmet: Counter[str] = field(default_factory=Counter)  # pairs that were in no trial, and are listed so
    to_rail: int = 0  # slow adapters that were named to the rail
    false: int = 0
    healthy: int = 0
    in_interval: int = 0
    with_interval: int = 0
    rounds: list[int] = field(default_factory=list)
    minutes: list[float] = field(default_factory=list)
    node_minutes: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def add(self, other: Score) -> None:
        """Add the score of another fleet."""
        for name in ("fleets", "to_rail", "false", "healthy", "in_interval", "with_interval", "cpu_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("seeded", "named", "hidden", "unmet", "rounds", "minutes", "node_minutes"):
            getattr(self, name).__iadd__(getattr(other, name))


def kind_of(fault: Fault) -> str:
    """Return under which kind a fault is counted: links that flap rarely are a kind of their own."""
    if fault.kind != FLAPPING:
        return fault.kind
    return FLAPPING_OFTEN if fault.every_s <= OFTEN_S else FLAPPING_RARELY


def network_of(topology: Topology, kinds: Sequence[str], seed: int) -> SimulatedNetwork:
    """Return a fleet with faults of these kinds."""
    faults = draw_faults(topology, share=SHARE, kinds=kinds, seed=seed) if kinds else []
    return SimulatedNetwork(topology=topology, faults=faults, seed=seed)


def score_ours(seed: int, *, profile: str, kinds: Sequence[str], hosts: int = HOSTS) -> Score:
    """Run our isolation on one fleet."""
    begun = time.process_time()
    fleet = simulated_fleet(hosts)
    topology = topology_of(fleet, (host.name for host in fleet.hosts), seed=seed)
    network = network_of(topology, kinds, seed)
    found = isolate(fleet, network, profile=profile, seed=seed, able_hosts=topology.hosts)
    told = Told(
        subjects={a.subject for a in found.attributions if a.status == ACCUSED},
        rounds=found.rounds,
        minutes=network.clock_s / 60,
        node_minutes=found.node_minutes,
    )
    score = score_of(network.faults, told, hosts)
    _note_missed(score, network.faults, told, found)
    slow = {a.subject: a for a in found.attributions if a.slowdown_low is not None}
    for fault in network.faults:
        score.to_rail += fault.kind == SLOW_NIC and fault.subjects[-1] in told.subjects
        known = next((slow[s] for s in fault.subjects if s in slow and fault.every_s == 0), None)
        if known is not None and fault.speed < 1 and known.slowdown_low and known.slowdown_high:
            score.with_interval += 1
            score.in_interval += known.slowdown_low <= 1 / fault.speed <= known.slowdown_high
    score.cpu_s = time.process_time() - begun
    return score


def _note_missed(score: Score, faults: Sequence[Fault], told: Told, found: NetworkOutcome) -> None:
    """Note why a fault was not named, as far as the outcome itself says that it could not be."""
    not_tested = {a.subject for a in found.attributions if a.status == SUSPECTED_BEHIND}
    not_tested |= set(found.untested_parts)
    for fault in faults:
        if told.subjects & set(fault.subjects):
            continue
        is_listed = bool(not_tested & set(fault.subjects))
        if fault.kind in PAIR_KINDS and found.untested.holds((fault.hosts[0], fault.hosts[1])):
            is_together = any(set(fault.hosts) <= set(trial.hosts) for trial in found.trials)
            is_listed = is_together
            score.unmet[kind_of(fault)] += not is_together
        score.hidden[kind_of(fault)] += is_listed


def score_rival(seed: int, *, run: Callable[[SimulatedNetwork], Told], kinds: Sequence[str]) -> Score:
    """Run what another tool does on the same fleet."""
    begun = time.process_time()
    fleet = simulated_fleet(HOSTS)
    topology = topology_of(fleet, (host.name for host in fleet.hosts), seed=seed)
    network = network_of(topology, kinds, seed)
    score = score_of(network.faults, run(network), HOSTS)
    score.cpu_s = time.process_time() - begun
    return score


def score_of(faults: Sequence[Fault], told: Told, hosts: int) -> Score:
    """Count what was named, and what was accused without reason."""
    score = Score(fleets=1, rounds=[told.rounds], minutes=[told.minutes], node_minutes=[told.node_minutes])
    right: set[str] = set()
    for fault in faults:
        between = any(set(fault.hosts) <= {*a, *b} for a, b in told.groups) and fault.kind in PAIR_KINDS
        score.seeded[kind_of(fault)] += 1
        score.named[kind_of(fault)] += bool(told.subjects & set(fault.subjects)) or between
        right |= set(fault.subjects)
    score.false = len(told.subjects - right)
    sick = {host for fault in faults for host in fault.hosts if fault.kind not in PAIR_KINDS}
    score.healthy = hosts - len(sick)
    return score


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one sort of fleet."""

    name: str
    fleets: str
    run: Callable[[int], Score]

    @property
    def key(self) -> tuple[str, str]:
        """By what its results are found again."""
        return self.name, self.fleets


def rows() -> list[Row]:
    """Return all that is run."""
    rivals = (
        ("NVCRE diagnose, as shipped: no floor", partial(run_diagnose, floor_share=None)),
        ("NVCRE diagnose, floor of 92 %", partial(run_diagnose, floor_share=FLOOR_SHARE)),
        ("CVS growing ring, floor of 300", run_growing_ring),
        ("all pairs, floor of 92 %", partial(run_all_pairs, floor_share=FLOOR_SHARE)),
    )
    found = []
    for fleets, kinds in ((SICK, MIXED), (HEALTHY, ())):
        for profile in ("intake", "soak"):
            run = partial(score_ours, kinds=kinds, profile=profile)
            found.append(Row(name=f"overproof {profile}", fleets=fleets, run=run))
        for name, rival in rivals:
            found.append(Row(name=name, fleets=fleets, run=partial(score_rival, kinds=kinds, run=rival)))
    one_rail = partial(score_ours, kinds=RAIL_ONLY, profile="intake")
    return [*found, Row(name="overproof intake", fleets=ONE_RAIL, run=one_rail)]


Task = tuple[int, int]  # number of the row, seed


def main() -> None:
    """Run what is missing of the study, and write its report."""
    from tests.studies.attribution_report import render

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where each fleet that is done is kept")
    parser.add_argument("--report", type=Path, default=REPORT)
    arguments = parser.parse_args()
    plan, code = rows(), digest_of_sources()
    known = dict(_kept(arguments.results, code))
    tasks = [
        (number, seed)
        for seed in range(arguments.seeds)
        for number, row in enumerate(plan)
        if (*row.key, seed) not in known
    ]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    with (
        multiprocessing.get_context("spawn").Pool(arguments.workers) as pool,
        arguments.results.open("a", encoding="utf-8") as kept,
    ):
        for done, ((number, seed), score) in enumerate(pool.imap_unordered(_run, tasks), 1):
            row = plan[number]
            known[(*row.key, seed)] = score
            line = {"code": code, "row": row.name, "fleets": row.fleets, "seed": seed}
            line["score"] = {name: getattr(score, name) for name in Score.__slots__}
            kept.write(json.dumps(line) + "\n")
            kept.flush()
            sys.stderr.write(
                f"{done}/{len(tasks)}: {row.name}, {row.fleets}, seed {seed}: {score.cpu_s:.0f} s\n"
            )
    totals = [(row, _total(row, known, arguments.seeds)) for row in plan]
    command = f"python -m tests.studies.attribution {' '.join(sys.argv[1:])}".strip()
    arguments.report.write_text(render(totals, command), encoding="utf-8")


def _run(task: Task) -> tuple[Task, Score]:
    number, seed = task
    return task, rows()[number].run(seed)


def _total(row: Row, known: dict[tuple[str, str, int], Score], seeds: int) -> Score:
    total = Score()
    for seed in range(seeds):
        if (*row.key, seed) in known:
            total.add(known[(*row.key, seed)])
    return total


def _kept(path: Path, code: str) -> Iterator[tuple[tuple[str, str, int], Score]]:
    """Yield what an earlier call with the same code has done; a last line that was cut off is done again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if told["code"] == code:
            score = told["score"]
            counters = {name: Counter(score[name]) for name in ("seeded", "named", "hidden", "unmet")}
            yield (told["row"], told["fleets"], told["seed"]), Score(**(score | counters))


def digest_of_sources() -> str:
    """Return what tells results of this code from those of another."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in SOURCES:
        path = ROOT / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()

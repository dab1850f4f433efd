"""The network stage within a fleet's run: begins it, goes on after a stop, replays it from the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from burnin.fleet.host import Fleet
from burnin.fleet.network.attribution import NetworkOutcome
from burnin.fleet.network.isolation import isolate
from burnin.fleet.network.reading import BusbwFloor
from burnin.fleet.network.record import RecordedRounds, read_results
from burnin.fleet.network.search import Limits
from burnin.fleet.network.trial import RoundRunner, Trial, TrialResult
from reports.record import RunWriter
from reports.run import Run

STAGE_EVENT = "network"  # tells with what the stage was begun, so that it can be replayed


def run_network(
    writer: RunWriter,
    fleet: Fleet,
    run_round: RoundRunner,
    *,
    profile: str,
    seed: int,
    able_hosts: Iterable[str],
    limits: Limits | None = None,
    before: Run | None = None,
) -> NetworkOutcome:
    """Run the network stage with its trials in the record; ``before`` is the same run, cut off earlier.

    It goes on with the hosts that could take part then: with others every trial would be another one.
    """
    limits = limits or Limits()
    told = before.events_of(STAGE_EVENT) if before is not None else []
    able = list(told[-1].data["able_hosts"]) if told else sorted(able_hosts)
    writer.event(
        "network",
        STAGE_EVENT,
        profile=profile,
        seed=seed,
        able_hosts=able,
        rounds_max=limits.rounds_max,
        node_minutes_max=limits.node_minutes_max,
        floors=[{name: getattr(floor, name) for name in BusbwFloor.__slots__} for floor in limits.floors],
    )
    return isolate(
        fleet,
        RecordedRounds(writer=writer, run_round=run_round),
        profile=profile,
        seed=seed,
        able_hosts=able,
        limits=limits,
        recorded=read_results(before) if before is not None else {},
    )


def read_outcome(run: Run, fleet: Fleet) -> NetworkOutcome | None:
    """Conclude again from the recorded trials alone; None: the run had no network stage."""
    told = run.events_of(STAGE_EVENT)
    if not told:
        return None
    data = told[-1].data
    limits = Limits(
        rounds_max=data["rounds_max"],
        node_minutes_max=data["node_minutes_max"],
        floors=tuple(BusbwFloor(**floor) for floor in data["floors"]),
    )
    return isolate(
        fleet,
        _nothing_more,
        profile=str(data["profile"]),
        seed=int(data["seed"]),
        able_hosts=list(data["able_hosts"]),
        limits=limits,
        recorded=read_results(run),
    )


def _nothing_more(trials: Sequence[Trial]) -> list[TrialResult]:
    return [TrialResult(trial=trial, state="not run", detail="not in the record") for trial in trials]

"""What the hosts of a fleet do together once each has done its own: the network stage, a training step.

It runs in a thread of its own, so that Ctrl-C is heard at once: closing the launchers ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from burnin.fleet.archive import build_archive
from burnin.fleet.host import Fleet, Host
from burnin.fleet.launchers.channel import Launcher
from burnin.fleet.left_out import LEFT_OUT
from burnin.fleet.network.cabling_run import record_cabling
from burnin.fleet.network.depth import DEPTHS
from burnin.fleet.network.record import TABLE
from burnin.fleet.network.stage import STAGE_EVENT, run_network
from burnin.fleet.network.trial import RoundRunner, Trial, TrialResult
from burnin.fleet.network.trial_run import TrialRunner, TrialSettings
from burnin.fleet.training import TrainingPlan, run_training_stage
from burnin.node.order import Order
from probes.json_types import JsonObject
from reports.record import RunWriter
from reports.run import Run, load_run

TRAINING = "training"
LEAVE_WITHIN_S = 10.0
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Which stages of many hosts are wanted."""

    is_network_wanted: bool = True
    training: TrainingPlan | None = None  # None: not wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What an earlier attempt of this run has of the network stage."""

    able_hosts: Sequence[str] = ()
    rows: Sequence[JsonObject] = ()


def earlier_of(run: Run, rows: Sequence[JsonObject]) -> Earlier:
    """Return what a run that is resumed knows already."""
    told = run.events_of(STAGE_EVENT)
    return Earlier(able_hosts=list(told[-1].data["able_hosts"]) if told else (), rows=rows)


def run_together(
    writer: RunWriter,
    fleet: Fleet,
    order: Order,
    *,
    able: Sequence[str],
    wanted: Together,
    launcher_of: Callable[[Host], Launcher],
    earlier: Earlier,
    start_within_s: float,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> None:
    """Run what is wanted over the hosts that are able; what is not run is said."""
    runner = TrialRunner(
        hosts={host.name: host for host in fleet.hosts},
        launcher_of=launcher_of,
        archive=build_archive(),
        settings=TrialSettings(
            device=order.device,
            seed=order.seed,
            length_s=DEPTHS[str(writer.header.spec.get("profile", "quick"))].length_s,
            start_within_s=start_within_s + 90.0,
        ),
    )
    reason = "" if len(able) > 1 else f"{len(able)} of {len(fleet.hosts)} hosts are able, and it takes two"
    if reason or not wanted.is_network_wanted:
        why = reason or "it was not asked for"
        writer.event("controller", LEFT_OUT, stage="network", reason=why)
    else:
        record_cabling(writer, [runner.hosts[name] for name in able], launcher_of, runner.archive)
        _network(writer, fleet, _watched(runner, tell, stop), able, earlier)
    if wanted.training is not None and reason:
        writer.event("controller", LEFT_OUT, stage=TRAINING, reason=reason)
    elif wanted.training is not None:
        tell("a training step")
        trained = run_training_stage(runner, able, wanted.training)
        if stop.is_set():
            raise Stopped
        for row in trained.rows:
            writer.sample("train", row)
        writer.event("controller", TRAINING, **trained.to_event())


class Stopped(Exception):
    """Somebody stopped us: what hosts did since is nobody's fault, and not for the record."""


def _watched(runner: TrialRunner, tell: Callable[[str], None], stop: threading.Event) -> RoundRunner:
    """Say what each round is about; one that was cut short by us tells nothing of any host."""

    def run(trials: Sequence[Trial]) -> Sequence[TrialResult]:
        designs = ", ".join(sorted({trial.design for trial in trials}))
        tell(f"round {trials[0].round}: {len(trials)} trials ({designs})" if trials else "")
        results = runner(trials)
        if stop.is_set():
            raise Stopped
        return results

    return run


def _network(
    writer: RunWriter, fleet: Fleet, runner: RoundRunner, able: Sequence[str], earlier: Earlier
) -> None:
    """Go on where an earlier attempt ended, if it had the same hosts: with others it is another stage."""
    before = None
    if earlier.rows and sorted(earlier.able_hosts) == sorted(able):
        for row in earlier.rows:
            writer.sample(TABLE, row)
        before = load_run(writer.path)
    profile = str(writer.header.spec.get("profile", "quick"))
    run_network(
        writer, fleet, runner, profile=profile, seed=writer.header.seed, able_hosts=able, before=before
    )


def in_thread(work: Callable[[], None], *, stop: threading.Event, on_stop: Callable[[], None]) -> None:
    """Do it in a thread and wait for it; its error is raised here. ``on_stop`` makes it end early."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="together", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_S)
    except BaseException:
        stop.set()
        on_stop()
        thread.join(LEAVE_WITHIN_S)
        raise
    if failed:
        raise failed[0]

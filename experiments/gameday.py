"""A game day: target, load, Chaos Toolkit and the record, held together by this controller.

Whatever ends it (its own end, Ctrl-C, a crash of a child, a full disk), what was broken is put back first,
then load and target are ended, then the record is judged. After kill -9 the children leave by their lifelines
and ``overproof gameday undo`` puts back what is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from experiments.actions import ENDPOINT_VARIABLE
from experiments.alerts.watch import AlertWatch
from experiments.breaking import Breaking
from experiments.day import Day, LabChoice
from experiments.experiment import Experiment
from experiments.guards.watch import GuardWatch
from experiments.injecting import crash_points
from experiments.injecting.bounds import PLAN_FILE
from experiments.injecting.injection import undo_pending
from experiments.judging import judge_run
from experiments.live.record import LiveRecord
from experiments.live.view import HEADERS, DayView
from experiments.live.watched import Watched
from experiments.plan import confirm_plan, resolve_plan, try_to_resolve
from experiments.processes.load import end_of_load, finish_load, start_load
from experiments.processes.stop import STOP_EVENT, watch_for_stop
from experiments.targets.all import load_kind
from experiments.targets.kind import Asked, Held, Reached
from experiments.training.actions import JOB_VARIABLE
from probes.child import python_module, start_child
from probes.errors import ConfigError, TargetError
from probes.interrupt import STOP_SIGNALS
from probes.json_types import JsonObject
from reports.exporter import MetricsPage, served_live
from reports.live import Progress
from reports.record import create_run, write_atomically
from reports.session import recording


def run_gameday(
    experiment: Experiment,
    *,
    out: Path,
    seed: int,
    lab: LabChoice,
    plan_hash: str = "",
    quiet: bool = False,
    metrics: MetricsPage | None = None,
) -> Path:
    """Run an experiment on its target and return the folder of its judged record.

    With ``plan_hash`` only that very plan is carried out.

    Raises:
        ConfigError: the run folder cannot be written, or the target is taken or not as asked for.
        TargetError: target or load did not come up.
    """
    writer = create_run(out, kind="gameday", spec=spec_of(experiment, lab), seed=seed)
    crash_points.prepare(writer.path.resolve())
    with recording(writer, judge_run), Progress("game day", quiet=quiet) as progress:
        conductor = _Conductor(
            Day(
                experiment=experiment,
                writer=writer,
                out=out,
                progress=progress,
                lab=lab,
                plan_hash=plan_hash,
            )
        )
        with conductor.shown_live(metrics or MetricsPage()):
            conductor.run()
    return writer.path


def spec_of(experiment: Experiment, lab: LabChoice) -> JsonObject:
    """Return what the record of a game day says of its experiment."""
    return {
        "title": experiment.title,
        "experiment": str(experiment.path),
        "document": experiment.document,
        "workload": str(experiment.workload or ""),
        "slos": {phase: [asdict(slo) for slo in slos] for phase, slos in experiment.slos.items()},
        "steady_s": experiment.steady_s,
        "recovery_s": experiment.recovery_s,
        "after_s": experiment.after_s,
        "requests_min": experiment.requests_min,
        "guards": [asdict(guard) for guard in experiment.guards],
        "alerts": None if experiment.alerts is None else asdict(experiment.alerts),
        "budget_window_days": experiment.budget_window_days,
        "lab_restarts": lab.is_restarting,
        **experiment.target.to_json(),
        "reaccept": None
        if experiment.reaccept is None
        else asdict(experiment.reaccept) | {"plan": str(experiment.reaccept.plan or "")},
        "training": None if experiment.training is None else asdict(experiment.training),
    }


class _Conductor:
    """Goes through the phases of one game day, and ends whatever it has begun."""

    def __init__(self, day: Day) -> None:
        experiment, record = day.experiment, LiveRecord(day.folder)
        self.day = day
        self.kind = load_kind(experiment.target.kind)
        self.phase = ""
        self.watched = Watched(day=day, record=record, check=self._check_children, begin=self._phase)
        guards = GuardWatch(experiment.guards, experiment.slos["during"], record, day.folder)
        self.view = DayView(experiment, day.folder, guards.seen, steps=self.watched.steps)
        self.alerts = None if experiment.alerts is None else AlertWatch(experiment.alerts, day.writer)
        self.breaking = Breaking(day, self.watched, guards, self.alerts)
        self.load: subprocess.Popen[str] | None = None
        self.held = Held()

    @contextlib.contextmanager
    def shown_live(self, metrics: MetricsPage) -> Iterator[None]:
        """Show how the day stands, on the terminal and to Prometheus, for as long as the block."""
        self.day.progress.show_table(HEADERS, self.view.rows, left_columns=len(HEADERS))
        with served_live(metrics, self.day.writer, self.day.progress, self.view.figures):
            yield

    def run(self) -> None:
        """Go through the phases; whatever happens, put everything back."""
        try:
            self._go()
        finally:  # a signal may come between here and ``signals_held``, but only one ever raises
            with signals_held():
                self.end()

    def _go(self) -> None:
        day, stack = self.day, self.day.stack
        try:
            stack.callback(watch_for_stop(day.folder, lambda by: day.event(STOP_EVENT, by=by)))
            reached = self.kind.reach(day)
            self.watched.training = training = reached.training
            self.held = self.kind.hold(day, self._permitted_plan(reached))
            if training is not None:
                stack.callback(training.stop)
                training.start()
            if self.alerts is not None:
                stack.callback(self.alerts.stop)
                self.alerts.start()
            self._start_guard_probes(reached)
            if day.experiment.workload is not None:
                self._start_load(reached)
            if self._is_broken_and_mended(reached):
                self.watched.watch_afterwards(is_recovered="t_recover" in self.breaking.seen)
            if self.load is not None:
                self._finish_load(self.load)
            elif training is not None:
                self._phase("", time.time_ns())
                training.note_checkpoints()
            self._put_back()
        finally:
            with signals_held():
                self.end()

    def _is_broken_and_mended(self, reached: Reached) -> bool:
        """Break what the experiment says, where the service is well; return whether no guard stopped it."""
        is_ready = self.watched.becomes_steady() and self.breaking.guards_see()
        return is_ready and self.breaking.run(self._environment(reached)) and self.breaking.trip is None

    def _phase(self, phase: str, t_ns: int) -> None:
        """End the phase that was and begin another; an empty name begins none."""
        if self.phase:
            self.day.event_at(t_ns, "phase.ended", phase=self.phase)
        if phase:
            self.day.event_at(t_ns, "phase.started", phase=phase)
        self.phase = phase
        self.view.begin(phase)

    def _permitted_plan(self, reached: Reached) -> Asked:
        """Resolve what would be hit, refuse what may not be, and write down what actions have to keep to."""
        day, experiment = self.day, self.day.experiment
        first = None
        if self.kind.is_planned_first:
            first = resolve_plan(experiment, reached.folder, seed=day.seed)
        asked = Asked(
            experiment=experiment, plan=first, folder=reached.folder, out=day.out, run=day.folder.name
        )
        conditions = self.kind.conditions(asked)
        for condition in conditions:
            if not condition.is_met:
                raise ConfigError(f"{experiment.path}: {condition.name}: {condition.observed}")
        day.event("plan.permitted", conditions=[asdict(condition) for condition in conditions])
        plan = first or try_to_resolve(experiment, reached.folder, seed=day.seed)
        if isinstance(plan, str):
            if day.plan_hash:
                raise TargetError(f"{experiment.path}: --plan: {plan}")
            day.event("plan.unresolved", reason=plan)
            bounds: JsonObject = {"max_share": experiment.max_share, "targets": []}
        else:
            if day.plan_hash:
                confirm_plan(plan, day.plan_hash)
            bounds = plan.to_json()
            day.event("plan.resolved", hash=plan.hash, is_confirmed=bool(day.plan_hash))
        document = bounds | {"is_confirmed": bool(day.plan_hash)}
        write_atomically(day.folder / PLAN_FILE, json.dumps(document, indent=1, default=str) + "\n")
        return asked

    def _environment(self, reached: Reached) -> dict[str, str]:
        endpoint = {ENDPOINT_VARIABLE: reached.url} if reached.url else {}
        job = {JOB_VARIABLE: str(reached.training.folder)} if reached.training else {}
        return self.day.marked() | endpoint | job | reached.variables

    def _start_guard_probes(self, reached: Reached) -> None:
        if not any(guard.probe is not None for guard in self.day.experiment.guards):
            return
        arguments = ["--experiment", str(self.day.experiment.path), "--run", str(self.day.folder)]
        with (self.day.folder / "guard.log").open("w") as log:
            command = python_module("experiments.guards.probes", *arguments)
            child = start_child(command, stdout=log, stderr=log, env=self._environment(reached))
        self.day.ends("guard probes", child)

    def _start_load(self, reached: Reached) -> None:
        day = self.day
        day.progress.step("steady state", "running", "starting load")
        self.load = start_load(day.experiment, day.folder, url=reached.url, seed=day.seed, env=day.marked())
        day.event("load.started", pid=self.load.pid)

    def _check_children(self) -> None:
        """Raise when what a game day stands on has gone."""
        self.held.check()
        training = self.watched.training
        errors = (
            None if self.alerts is None else self.alerts.error,
            None if training is None else training.error,
            None if self.load is None else end_of_load(self.load, self.day.folder),
        )
        for error in errors:
            if error is not None:
                raise error

    def _finish_load(self, load: subprocess.Popen[str]) -> None:
        """Have the load drain and judge itself."""
        self._check_children()
        self.day.progress.step("load", "running", "finishing")
        self.day.event("load.ended", exit_status=finish_load(load))
        self._phase("", time.time_ns())
        self.day.progress.step("load", "done")

    def _put_back(self) -> None:
        """Undo whatever is pending; Chaos Toolkit's rollbacks may have done it, or not."""
        undone = undo_pending(self.day.folder, by="controller")
        self.held.see_after()
        left = [u for u in undone if not u.is_restored]
        self.day.progress.step("undo", "fail" if left else "done", "; ".join(u.did for u in left))
        if self.alerts is not None:
            self.alerts.stop()  # what fires from now on may be of the last trial's
        self.held.give_back()

    def end(self) -> None:
        """End everything of ours, the fault first.

        Each step has a deadline, and none that fails keeps the next from running. Harmless a second time.
        """
        with self.day.stack as stack:
            if self.load is not None:
                self.day.ends("load", self.load)
            stack.callback(undo_pending, self.day.folder, by="controller")
            stack.callback(self.breaking.end)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Keep stop signals waiting, so that none cuts short the putting back; the first counts afterwards.

    By handlers, not by a mask: a mask holds for one thread only, and another would take the signal.
    """
    noted: list[int] = []
    before = {number: signal.signal(number, lambda n, _: noted.append(n)) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if noted:
            os.kill(os.getpid(), noted[0])

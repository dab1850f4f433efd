"""Chaos Toolkit in a process of its own: ``python -m experiments.chaos.child --experiment FILE --run DIR``.

What is ours here, because Chaos Toolkit does it otherwise: rollbacks always run; SIGTERM, SIGINT and SIGHUP
interrupt the experiment (Chaos Toolkit lets a Python action swallow SIGTERM and goes on with the next fault);
every activity has a deadline (time-outs of Python providers are ignored); each step is on the timeline as it
happens (the journal comes only at the end). Its journal is evidence. The verdict is drawn from the record.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from chaoslib.experiment import run_experiment
from chaoslib.run import RunEventHandler
from chaoslib.types import Strategy

from experiments.declared.watch import DeclaredWatch
from experiments.experiment import deadline_s, load_experiment
from experiments.live.timeline import Timeline
from probes.child import watch_lifeline
from probes.errors import RecordError, SuiteError
from probes.interrupt import STOP_SIGNALS
from probes.json_types import JsonObject
from reports.record import mask_secrets, write_atomically

JOURNAL_FILE = "journal.json"
LEAVE_TIMEOUT_S = 45.0  # rollbacks after a stop; the controller, which undoes what is left, waits no longer
ORPHAN_TIMEOUT_S = 6.0  # rollbacks when the controller is gone
OUTPUT_KEPT = 2000  # characters of an activity's output on the timeline
_EXIT_WITH_ROLLBACKS = 20  # Chaos Toolkit's own code for it


class Stop:
    """Whether we were asked to stop, and what a signal may still do about it."""

    def __init__(self, *, is_ours: bool = True) -> None:
        self.is_ours = is_ours  # False: signals and time-outs stay as Chaos Toolkit has them
        self.reason = ""
        self.is_interrupted = False
        self.is_rolling_back = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the experiment, once, and never the rollbacks.

        ``SystemExit``, since Chaos Toolkit takes an ``Exception`` raised inside an action for that action's.
        """
        del frame
        if self.is_interrupted or self.is_rolling_back:
            return
        self.is_interrupted = True
        self.leave_within(LEAVE_TIMEOUT_S, signal.Signals(number).name)
        raise SystemExit(_EXIT_WITH_ROLLBACKS)

    def leave_within(self, timeout_s: float, reason: str) -> None:
        """Note the reason, and leave after that time even if something hangs."""
        self.reason = self.reason or reason
        if not self.is_ours:
            return
        timer = threading.Timer(timeout_s, os._exit, [1])
        timer.daemon = True
        timer.start()

    def install(self) -> None:
        """Put our handlers in place, over Chaos Toolkit's own."""
        for number in (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self.on_signal)


class ActivityOverran(SystemExit):
    """An action overran its deadline: whether it took hold is unknown, so nothing else may follow."""


class Recorder(RunEventHandler):  # type: ignore[misc]  # chaoslib has no types
    """Puts each step on the timeline and keeps each activity to its deadline."""

    def __init__(self, timeline: Timeline, stop: Stop, declared: DeclaredWatch) -> None:
        self._timeline = timeline
        self._stop = stop
        self._declared = declared
        self._phase = "starting"
        self._timers: dict[int, threading.Timer] = {}  # by thread, of background activities

    def running(self, *_: object) -> None:
        """Take the signals back: Chaos Toolkit has just installed its own handlers."""
        self._stop.install()
        signal.signal(signal.SIGALRM, self._on_alarm)
        self._note("chaos.started", pid=os.getpid())

    def start_hypothesis_before(self, experiment: JsonObject) -> None:
        """The gate begins."""
        del experiment
        self._phase = "gate"

    def hypothesis_before_completed(self, experiment: JsonObject, state: JsonObject, journal: object) -> None:
        """Say whether the gate let the method through."""
        del experiment, journal
        self._note("chaos.hypothesis", when="before", is_met=bool(state and state["steady_state_met"]))

    def start_hypothesis_after(self, experiment: JsonObject) -> None:
        """The last look begins."""
        del experiment
        self._phase = "after"

    def hypothesis_after_completed(self, experiment: JsonObject, state: JsonObject, journal: object) -> None:
        """Say whether the hypothesis held afterwards."""
        del experiment, journal
        self._note("chaos.hypothesis", when="after", is_met=bool(state and state["steady_state_met"]))

    def start_method(self, experiment: JsonObject) -> None:
        """The method begins."""
        del experiment
        self._phase = "method"

    def start_rollbacks(self, experiment: JsonObject) -> None:
        """Rollbacks begin: from here on no signal interrupts."""
        del experiment
        self._phase, self._stop.is_rolling_back = "rollbacks", True
        self._note("chaos.rollbacks.started")

    def start_activity(self, activity: JsonObject) -> None:
        """Arm what is needed for its undo, and start the activity's clock."""
        self._start_clock(activity, self._declared.limit_s(activity))
        self._arm(activity)
        limit_s = deadline_s(activity)
        named = {"name": activity["name"], "type": activity["type"], "phase": self._phase}
        self._note("chaos.activity.started", **named, limit_s=limit_s)
        self._stop_clock()
        self._start_clock(activity, limit_s)

    def _arm(self, activity: JsonObject) -> None:
        """See to what has to be on the disk before an action; without it, it is not carried out.

        ``SystemExit``, since Chaos Toolkit drops an ``Exception`` of ours, and goes on.
        """
        try:
            self._declared.before(activity, self._phase)
        except SuiteError as error:
            self._note("chaos.activity.refused", name=activity["name"], reason=str(error))
            if self._phase != "method":
                return
            self._stop.is_interrupted = True
            self._stop.leave_within(LEAVE_TIMEOUT_S, f"no ledger: {error}")
            raise SystemExit(_EXIT_WITH_ROLLBACKS) from error

    def _start_clock(self, activity: JsonObject, limit_s: float) -> None:
        if not self._stop.is_ours:
            return
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            return
        timer = threading.Timer(limit_s, self._background_overran, [activity["name"]])
        timer.daemon = True
        self._timers[threading.get_ident()] = timer
        timer.start()

    def activity_completed(self, activity: JsonObject, run: JsonObject) -> None:
        """Stop the clock, say what came of the activity, and look at what it broke or undid."""
        self._stop_clock()
        self._note(
            "chaos.activity.completed",
            name=activity["name"],
            type=activity["type"],
            phase=self._phase,
            status=run.get("status", "interrupted"),
            duration_s=run.get("duration"),
            output=_shortened(run.get("output")),
            exception="".join(run.get("exception") or ())[-OUTPUT_KEPT:],
        )
        self._start_clock(activity, self._declared.limit_s(activity))
        try:
            self._declared.after(activity, run, self._phase)
        except SuiteError as error:  # what is not noted stays pending, and is undone
            self._note("chaos.activity.unseen", name=activity["name"], reason=str(error))
        finally:
            self._stop_clock()
        if self._stop.is_interrupted and not self._stop.is_rolling_back:
            raise SystemExit(_EXIT_WITH_ROLLBACKS)  # or Chaos Toolkit would sit out the pause that follows

    def _stop_clock(self) -> None:
        if not self._stop.is_ours:
            return
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif timer := self._timers.pop(threading.get_ident(), None):
            timer.cancel()

    def finish(self, journal: JsonObject) -> None:
        """Say how Chaos Toolkit itself saw it."""
        self._note("chaos.finished", status=journal.get("status"), deviated=journal.get("deviated"))

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._note("chaos.activity.overran", phase=self._phase)
        if self._phase == "method":
            self._stop.is_interrupted = True
            self._stop.leave_within(LEAVE_TIMEOUT_S, "an activity overran its deadline")
            raise ActivityOverran(_EXIT_WITH_ROLLBACKS)
        raise TimeoutError("the activity overran its deadline")

    def _background_overran(self, name: str) -> None:
        self._note("chaos.activity.overran", name=name, phase=self._phase)
        os.kill(os.getpid(), signal.SIGTERM)

    def _note(self, kind: str, **data: object) -> None:
        try:
            self._timeline.note(kind, **data)
        except RecordError as error:  # Chaos Toolkit drops what a handler raises; without a record we stop
            if not self._stop.is_rolling_back:
                sys.stderr.write(f"{error}\n")
                os.kill(os.getpid(), signal.SIGTERM)


def _shortened(output: object) -> object:
    text = json.dumps(output, default=str)
    return output if len(text) <= OUTPUT_KEPT else text[:OUTPUT_KEPT] + "…"


def run_chaos(experiment_file: Path, run_folder: Path) -> JsonObject:
    """Run the experiment on this, the main, thread; write and return its journal.

    Raises:
        ConfigError: the file is not a sound experiment.
    """
    stop = Stop()
    stop.install()

    def parent_gone() -> None:
        stop.leave_within(ORPHAN_TIMEOUT_S, "the controller is gone")
        os.kill(os.getpid(), signal.SIGTERM)

    watch_lifeline(parent_gone)
    experiment = load_experiment(experiment_file)
    settings = {"runtime": {"rollbacks": {"strategy": "always"}}}
    with Timeline(run_folder, "chaos") as timeline:
        journal: JsonObject = run_experiment(
            experiment.document,
            settings=settings,
            strategy=Strategy.DEFAULT,
            event_handlers=[Recorder(timeline, stop, DeclaredWatch(experiment, run_folder, timeline))],
        )
        journal["stopped_by"] = stop.reason
        write_atomically(
            run_folder / JOURNAL_FILE, json.dumps(mask_secrets(journal), default=str, indent=1) + "\n"
        )
    return journal


def main() -> int:
    """Run Chaos Toolkit for one game day."""
    parser = argparse.ArgumentParser(prog="experiments.chaos.child")
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        run_chaos(given.experiment, given.run)
    except SuiteError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

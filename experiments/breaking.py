"""The part of a game day that breaks something: Chaos Toolkit, the recovery after it, and what stops it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

from experiments.alerts.watch import AlertWatch
from experiments.chaos.process import HEARD_TIMEOUT_S, ChaosProcess
from experiments.day import Day
from experiments.evidence import read_faults
from experiments.guards.watch import GuardWatch, Trip
from experiments.impact.recovery import Times
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import read_ledger
from experiments.live.watched import POLL_S, Watched
from reports.run import load_run

FOLLOW_EXTRA_S = 5.0  # how much longer than recovery_s we watch for recovery
GUARD_READY_TIMEOUT_S = 15.0  # until every guard sees, once traffic is steady
GUARD_HEARD_S = 1.5  # a guard stops a running action within 2 s, by SIGKILL where it hears nothing
_GUARD_POLL_S = 0.2


class Breaking:
    """The state of what is broken."""

    def __init__(self, day: Day, watched: Watched, guards: GuardWatch, alerts: AlertWatch | None) -> None:
        self._day = day
        self._watched = watched
        self._guards = guards
        self._alerts = alerts
        self._chaos: ChaosProcess | None = None
        self.seen: set[str] = set()  # moments of the fault that are on the timeline
        self.trip: Trip | None = None  # what stopped it

    def guards_see(self) -> bool:
        """See that every guard could stop us, before anything is broken."""
        deadline = time.monotonic() + GUARD_READY_TIMEOUT_S
        while (blind := self._guards.first_blind()) is not None:
            self._watched.check()
            if time.monotonic() > deadline:
                self._note_trip(blind, "; nothing is injected")
                return False
            time.sleep(_GUARD_POLL_S)
        return True

    def run(self, env: Mapping[str, str]) -> bool:
        """Run Chaos Toolkit and follow the recovery; return whether a fault was injected."""
        day, experiment = self._day, self._day.experiment
        day.progress.step("fault", "running", experiment.title)
        self._chaos = chaos = ChaosProcess(experiment, day.folder, env)
        deadline = time.monotonic() + experiment.chaos_deadline_s
        clock_at: float | None = None  # when recovery began to be expected
        next_at = time.monotonic()
        times: Times | None = None
        is_void = False  # it was cut short, or mended by us: what it was to show will not be seen
        while True:
            self._watched.check()
            self._obey_guards()
            if time.monotonic() < next_at:
                time.sleep(_GUARD_POLL_S)
                continue
            next_at = time.monotonic() + POLL_S
            has_ended = chaos.exit_status is not None
            is_first, times = times is None, self._watched.times()
            if times is not None:
                if is_first:
                    self._watched.begin("during", times.t_inject_ns)
                    day.progress.step("fault", "done", "injected")
                    day.progress.step("recovery", "running")
                self._note_moments(times)
                if clock_at is None and (times.t_clock_ns is not None or has_ended):
                    clock_at = time.monotonic()
            if has_ended and not is_void and (chaos.was_cut_short() or self._is_mended_by_us()):
                is_void = True
                undo_pending(day.folder, by="controller")
            if has_ended and (times is None or self._is_over(times, clock_at, is_void=is_void)):
                break
            if not has_ended:
                self._check_deadlines(chaos, deadline)
        day.event("guards.watched", looks=self._guards.looks)
        day.event("chaos.ended", exit_status=chaos.exit_status)
        self._say_how_it_went(times)
        return times is not None

    def _say_how_it_went(self, times: Times | None) -> None:
        if times is None:
            self._day.progress.step("fault", "inconclusive", "nothing was injected")
            return
        has_traffic = self._day.experiment.workload is not None
        back_ns = times.t_back_ns if has_traffic else times.t_redundant_ns
        self._day.progress.step("recovery", "done" if back_ns else "fail")
        self._watched.begin("after", times.t_back_ns or time.time_ns())

    def _obey_guards(self) -> None:
        """Stop at once and put everything back when a guard says so."""
        if self.trip is not None or (trip := self._guards.look()) is None:
            return
        began = time.monotonic()
        self._note_trip(trip)
        self._stop("guard", heard_within_s=GUARD_HEARD_S)
        self._day.event("guard.stopped", guard=trip.guard, took_s=round(time.monotonic() - began, 3))

    def _note_trip(self, trip: Trip, more: str = "") -> None:
        self.trip = trip
        self._day.event("guard.tripped", **asdict(trip))
        self._day.progress.step("guards", "fail", f"{trip.guard}: {trip.observed}{more}")

    def _stop(self, by: str, *, heard_within_s: float) -> None:
        if self._chaos is not None:
            self._chaos.end(heard_within_s=heard_within_s)
        undo_pending(self._day.folder, by=by)

    def _is_mended_by_us(self) -> bool:
        """Say whether undoing has put back what the platform was to heal: it will not any more."""
        folder = self._day.folder
        mended = {e.id for e in read_ledger(folder) if not e.is_pending and e.is_mended_by_us}
        faults = read_faults(load_run(folder))
        return any(fault.is_healed_by_platform and fault.data["id"] in mended for fault in faults)

    def _is_over(self, times: Times, clock_at: float | None, *, is_void: bool) -> bool:
        is_watched = self._watched.is_anything
        if not is_watched and is_void:
            return True
        if times.t_clock_ns is None and not any(e.is_pending for e in read_ledger(self._day.folder)):
            return True  # nobody will ever see it undone: it is of somebody else's, and not declared
        assert clock_at is not None
        longest_s = FOLLOW_EXTRA_S + (0.0 if is_void else self._day.experiment.recovery_s)
        # Without traffic there is no recovery to be seen.
        back_ns = times.t_back_ns if is_watched else times.t_redundant_ns
        if not (back_ns is not None or time.monotonic() - clock_at > longest_s):
            return False
        is_awaited = self._alerts is not None and self._alerts.is_worth_waiting_for(times.t_inject_ns)
        return is_void or not is_awaited

    def _check_deadlines(self, chaos: ChaosProcess, deadline: float) -> None:
        """End a child that is stuck where no signal is heard, or takes longer than all its deadlines."""
        if stuck := chaos.stuck_activity():
            self._day.event("chaos.stuck", activity=stuck)
            chaos.kill()
            undo_pending(self._day.folder, by="controller")
        elif time.monotonic() > deadline:
            self._day.event("chaos.overran", deadline_s=self._day.experiment.chaos_deadline_s)
            self._stop("controller", heard_within_s=HEARD_TIMEOUT_S)

    def _note_moments(self, times: Times) -> None:
        """Put each moment on the timeline once, as soon as it is seen; judging derives them again."""
        harm, detection = None, times.detection
        if self._alerts is not None:
            harm, detection = times.detection, self._alerts.detection(times.t_inject_ns)
        moments = {
            "t_harm": harm.t_ns if harm else None,
            "t_detect": detection.t_ns if detection else None,
            "t_mitigate": times.t_mitigate_ns,
            "t_recover": times.t_recover_ns,
            "t_redundant": times.t_redundant_ns,
        }
        for kind, t_ns in moments.items():
            if t_ns is not None and kind not in self.seen:
                self.seen.add(kind)
                noticed = {"t_harm": harm, "t_detect": detection}.get(kind)
                by = {"by": noticed.by} if noticed else {}
                self._day.event_at(t_ns, kind, after_inject_s=times.after_inject_s(t_ns), **by)

    def end(self) -> None:
        """Stop Chaos Toolkit; its rollbacks get their time, then undoing is the caller's."""
        if self._chaos is not None:
            self._chaos.end()

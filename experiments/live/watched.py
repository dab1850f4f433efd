"""What shows how the service is while a game day runs: traffic, or the steps of a training job."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from experiments.day import Day
from experiments.evidence import read_faults
from experiments.impact.recovery import GOOD_IN_A_ROW, WINDOW_NS, Times, cut_windows
from experiments.live.record import LiveRecord
from experiments.processes.load import START_TIMEOUT_S
from experiments.training.watch import TrainingWatch
from probes.errors import TargetError
from reports.run import load_run

STEADY_EXTRA_S = 30.0  # how much longer than steady_s we wait for steadiness
ROW_DELAY_NS = 2_000_000_000  # a request's row is there this long after it was due, in good times
POLL_S = 0.5


@dataclass(slots=True, kw_only=True)
class Watched:
    """Either of the two; neither: nobody looks, and only the target itself shows what was broken."""

    day: Day
    record: LiveRecord
    check: Callable[[], None]  # raises when what a game day stands on has gone
    begin: Callable[[str, int], None]  # begins a phase, at that time
    training: TrainingWatch | None = None  # None: traffic, where there is any

    @property
    def is_anything(self) -> bool:
        """Whether anybody looks."""
        return self.day.experiment.workload is not None or self.training is not None

    def steps(self) -> int | None:
        """Return how many steps a training job has made; None: there is none."""
        return None if self.training is None else self.training.progress().new_steps

    def times(self) -> Times | None:
        """Derive the faults' moments from what shows how the service is; None: nothing was injected."""
        if self.training is not None:
            return self.training.times(read_faults(load_run(self.day.folder)))
        return self.record.times(self.day.experiment.slos["after"])

    def becomes_steady(self) -> bool:
        """Wait until the service is well for long enough; return whether it came to that."""
        if self.training is not None:
            return self._trains(self.training)
        if self.day.experiment.workload is None:
            self.day.progress.step("steady state", "inconclusive", "no workload is named, so nobody looks")
            return True
        return self._serves()

    def _serves(self) -> bool:
        """Wait for enough good traffic."""
        experiment, progress = self.day.experiment, self.day.progress
        deadline = time.monotonic() + START_TIMEOUT_S
        first_ns: int | None = None
        while time.monotonic() < deadline:
            self.check()
            requests = self.record.requests()
            if requests and first_ns is None:
                first_ns = requests[0].t_intended_ns
                deadline = time.monotonic() + experiment.steady_s + STEADY_EXTRA_S
                self.begin("before", first_ns)
                progress.step("steady state", "running", f"traffic for {experiment.steady_s:g} s")
            now_ns = time.time_ns()
            if first_ns is not None and now_ns - first_ns >= experiment.steady_s * 1e9:
                start_ns = now_ns - ROW_DELAY_NS - GOOD_IN_A_ROW * WINDOW_NS
                windows = cut_windows(
                    requests, experiment.slos["before"], start_ns=start_ns, end_ns=now_ns - ROW_DELAY_NS
                )
                if windows and all(window.is_good for window in windows):
                    self.day.event("steady.seen", requests=len(requests))
                    progress.step("steady state", "done", f"{len(requests)} requests")
                    return True
            time.sleep(POLL_S)
        if first_ns is None:
            raise TargetError(f"load: no request came back within {START_TIMEOUT_S:g} s; see load.log")
        self.day.event("steady.missing", waited_s=experiment.steady_s + STEADY_EXTRA_S)
        progress.step("steady state", "fail", "not steady: nothing is injected")
        return False

    def _trains(self, training: TrainingWatch) -> bool:
        """Wait for enough new steps, of a job that is fed."""
        began, steady_s = time.monotonic(), self.day.experiment.steady_s
        self.begin("before", time.time_ns())
        self.day.progress.step("steady state", "running", f"steps for {steady_s:g} s")
        is_steady, reason = False, "too few steps, or none of late"
        while not is_steady and time.monotonic() - began < steady_s + STEADY_EXTRA_S:
            time.sleep(POLL_S)
            self.check()
            if time.monotonic() - began < steady_s:
                continue
            if reason_starved := training.starving():
                reason = reason_starved
                break
            is_steady = training.is_steady()
        if not is_steady:
            self.day.event("steady.missing", waited_s=round(time.monotonic() - began, 1), reason=reason)
            self.day.progress.step("steady state", "fail", f"{reason}: nothing is injected")
            return False
        steps = training.progress().new_steps
        self.day.event("steady.seen", steps=steps)
        self.day.progress.step("steady state", "done", f"{steps} steps")
        return True

    def watch_afterwards(self, *, is_recovered: bool) -> None:
        """Go on looking for ``after_s``; a job that is well again gets longer, until it has shown enough."""
        if not self.is_anything:
            return
        what, began_ns = "traffic" if self.training is None else "steps", time.time_ns()
        after_s = self.day.experiment.after_s
        self.day.progress.step("after", "running", f"{what} for {after_s:g} s")
        deadline = time.monotonic() + after_s
        latest = deadline + (STEADY_EXTRA_S if self.training is not None else 0.0)
        while (now := time.monotonic()) < latest:
            is_enough = self.training is None or self.training.has_steps_since(began_ns)
            if now >= deadline and (is_enough or not is_recovered):
                break
            self.check()
            time.sleep(POLL_S)
        self.day.progress.step("after", "done")

"""One load process: proves its reader, calibrates, walks its share of the schedule, and says how it went."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import gevent

from loadtests import plan as plans
from loadtests.calibration.certified import EVENT as CALIBRATED
from loadtests.calibration.client import calibrate
from loadtests.calibration.need import need_of
from loadtests.plan import LoadPlan
from loadtests.processes.recorder import Recorder
from loadtests.processes.tally import Tally
from loadtests.reading.control import run_controls
from loadtests.sending.dispatcher import Dispatcher, make_targets
from probes.event import Event
from probes.json_types import JsonObject
from probes.request import Request
from reports.record import RunWriter


class Load:
    """The state of one load process."""

    def __init__(
        self,
        plan: LoadPlan,
        writer: RunWriter,
        *,
        worker: int,
        on_written: Callable[[Request], None],
        on_event: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.worker = worker
        self.tally = Tally()
        self._whole, self._plan = plan, _with_share(plan, worker)
        self._writer, self._on_written, self._on_event = writer, on_written, on_event
        self._target, *others = make_targets(self._plan)
        self._clock_ahead_ns = 0
        self._recorder = Recorder(writer, self._note_written, worker=worker)
        self.dispatcher = Dispatcher(
            self._plan,
            self._target,
            self._recorder.put,
            worker=worker,
            workers=plan.crew.workers,
            others=others,
            on_endpoint=self._tell_of_endpoint,
        )
        self._writing: gevent.Greenlet | None = None  # None: not begun
        self._has_ended = False

    @property
    def folder(self) -> Path:
        """Where this process writes."""
        return self._writer.path

    def prepare(self, guarded: Callable[..., None]) -> None:
        """Begin to write, prove the reader, and find out how well this process measures."""
        self._writing = gevent.spawn(guarded, self._recorder.run, self.dispatcher)
        self._prove()
        self._calibrate()
        gc.collect()
        gc.freeze()  # what is there stays: looking through it again would stop the schedule for milliseconds

    def run(self, *, t0_ns: int, clock_ahead_ns: int = 0) -> None:
        """Walk the schedule from ``t0_ns`` of this machine's clock, and wait for the answers.

        ``clock_ahead_ns`` is how far this clock is ahead of the record's.
        """
        self._clock_ahead_ns = clock_ahead_ns
        self._event(plans.STARTED, t0_ns=t0_ns - clock_ahead_ns, url=self._plan.url)
        self.dispatcher.walk(t0_ns=t0_ns)
        arrivals = self.dispatcher.counts.arrivals
        self._event(plans.ARRIVALS_ENDED, arrivals=arrivals, is_early=self.dispatcher.is_finishing)
        self.dispatcher.drain(timeout_s=self._plan.workload.endpoint.timeout_s + 1)
        self._tell_guards()
        self.end("drained")

    def _tell_of_endpoint(self, kind: str, at_ns: int, data: JsonObject) -> None:
        self._event(kind, at_ns=at_ns - self._clock_ahead_ns, **data)

    def _tell_guards(self) -> None:
        stop = self.dispatcher.stop
        if stop is not None:
            self._event(plans.GUARD, guard=stop.guard, detail=stop.detail)
        self._event(plans.SPENT, **self.dispatcher.guards.spending.to_json())

    def _prove(self) -> None:
        results = run_controls(self._target)
        self._event(
            plans.READY,
            controls=[
                {"name": r.name, "wanted": r.wanted, "found": r.found, "is_proven": r.is_proven}
                for r in results
            ],
            is_stamped=all(r.is_stamped for r in results),
        )

    def _calibrate(self) -> None:
        """Find out how well this process measures, at what the load will need; the target is not touched."""
        workload = self._whole.workload
        if workload.calibration.is_skipped:
            return
        for found in calibrate(
            need_of(workload, seed=self._plan.seed, workers=self._plan.crew.workers),
            header=self._writer.header,
            worker=self.worker,
            on_written=lambda _: None,
            error_ms_max=workload.calibration.error_ms_max,
        ):
            self._event(CALIBRATED, **asdict(found))

    def end(self, reason: str) -> None:
        """Write what is still unwritten, once."""
        if self._has_ended:
            return
        self._has_ended = True
        self.dispatcher.abandon("was still under way when the load was stopped")
        if self._writing is not None:
            self._writing.kill()  # between two lines, never within one
        self._recorder.flush()
        self._recorder.write_figures(self.dispatcher)
        arrivals = self.dispatcher.counts.arrivals
        ended = self.dispatcher.counts.ended
        self._event(plans.ENDED, reason=reason, arrivals=arrivals, ended=ended, **self.tally.figures())

    def report(self) -> JsonObject:
        """Return all that the master adds up."""
        counts = self.dispatcher.counts
        return self.tally.to_json() | {
            "worker": self.worker,
            "arrivals": counts.arrivals,
            "in_flight": self.dispatcher.in_flight,
        }

    def _event(self, kind: str, **data: object) -> None:
        self._on_event(self._writer.event("load", kind, **data | {"worker": self.worker}))

    def _note_written(self, row: Request) -> None:
        self.tally.add(row)
        self._on_written(row)


def _with_share(plan: LoadPlan, worker: int) -> LoadPlan:
    """Return the plan with this worker's share of ``in_flight_max``, which bounds all of them together."""
    whole, workers = plan.spec.in_flight_max, plan.crew.workers
    share = max(1, whole // workers + (worker < whole % workers))
    return replace(plan, spec=plan.spec.model_copy(update={"in_flight_max": share}))

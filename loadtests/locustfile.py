"""The load as Locust runs it: one dispatcher user per process, Locust's own statistics fed at the true end.

The only file that imports locust, because that import patches the standard library. Locust by itself counts a
request when its head arrives and takes a stream that ends early for a success; here it gets one event per
request, when the answer has ended and has been found whole or not.
"""

from __future__ import annotations

# isort: off
import locust  # first: it patches the standard library
import locust.env

# isort: on
import gc
import logging
import os
import resource
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent

from loadtests import plan as plans
from loadtests.calibration import EVENT as CALIBRATED
from loadtests.calibration_client import calibrate
from loadtests.calibration_need import need_of
from loadtests.connections import Target
from loadtests.control import run_controls
from loadtests.dispatcher import Dispatcher, make_target
from loadtests.recorder import Recorder
from loadtests.workload import COMPLETIONS_PATH, read_headers
from probes.errors import ConfigError, RecordError, SuiteError
from probes.request import Request
from reports.record import RunWriter, load_header

_START_DELAY_S = 0.2
# Open files that this process may need beside one per request.
_FILES_EXTRA = 200
_log = logging.getLogger("overproof")
_events: Any = locust.events  # has no types


class IntegrityError(Exception):
    """What Locust shows for a failed request: the error kind."""


class Load:
    """The state of one load process, made when Locust has started."""

    def __init__(self, environment: locust.env.Environment) -> None:
        self._environment = environment
        self._plan = plans.load_plan(_plan_file())
        self._writer = RunWriter(self._plan.run, load_header(self._plan.run))
        self._target: Target = make_target(self._plan, headers=read_headers(self._plan.workload.endpoint))
        self.worker = 0
        self._recorder = Recorder(self._writer, self._tell_locust, worker=self.worker)
        self.dispatcher = Dispatcher(
            self._plan, self._target, self._recorder.put, worker=self.worker, workers=1
        )
        self._has_ended = False

    def run(self) -> None:
        """Prove the reader, walk the schedule, wait for the answers."""
        gevent.spawn(_guarded, self._recorder.run, self.dispatcher)
        self._prove()
        self._calibrate()
        gc.collect()
        gc.freeze()  # what is there stays: looking through it again would stop the schedule for milliseconds
        t0_ns = time.time_ns() + round(_START_DELAY_S * 1e9)
        self._writer.event("load", plans.STARTED, t0_ns=t0_ns, worker=self.worker, url=self._plan.url)
        self.dispatcher.walk(t0_ns=t0_ns)
        arrivals = self.dispatcher.counts.arrivals
        is_early = self.dispatcher.is_finishing
        self._writer.event(
            "load", plans.ARRIVALS_ENDED, worker=self.worker, arrivals=arrivals, is_early=is_early
        )
        self.dispatcher.drain(timeout_s=self._plan.workload.endpoint.timeout_s + 1)
        self._tell_guards()
        self.end("drained")

    def _tell_guards(self) -> None:
        stop = self.dispatcher.stop
        if stop is not None:
            self._writer.event("load", plans.GUARD, worker=self.worker, guard=stop.guard, detail=stop.detail)
        spent = self.dispatcher.guards.spending.to_json()
        self._writer.event("load", plans.SPENT, worker=self.worker, **spent)

    def _prove(self) -> None:
        results = run_controls(self._target)
        self._writer.event(
            "load",
            plans.READY,
            worker=self.worker,
            controls=[
                {"name": r.name, "wanted": r.wanted, "found": r.found, "is_proven": r.is_proven}
                for r in results
            ],
            is_stamped=all(r.is_stamped for r in results),
        )

    def _calibrate(self) -> None:
        """Find out how well this process measures, at what the load will need; the target is not touched."""
        workload = self._plan.workload
        if workload.calibration.is_skipped:
            return
        for found in calibrate(
            need_of(workload, seed=self._plan.seed),
            header=self._writer.header,
            worker=self.worker,
            on_written=lambda _: None,
            error_ms_max=workload.calibration.error_ms_max,
        ):
            self._writer.event("load", CALIBRATED, **asdict(found))

    def end(self, reason: str) -> None:
        """Write what is still unwritten, once."""
        if self._has_ended:
            return
        self._has_ended = True
        self.dispatcher.abandon("was still under way when the load was stopped")
        self._recorder.flush()
        self._recorder.write_figures(self.dispatcher)
        counts = self.dispatcher.counts
        self._writer.event(
            "load",
            plans.ENDED,
            worker=self.worker,
            reason=reason,
            arrivals=counts.arrivals,
            ended=counts.ended,
            failed=counts.failed,
            dropped=counts.dropped,
            events=counts.events,
        )

    def _tell_locust(self, row: Request) -> None:
        began_ns = row.t_sent_ns or row.t_intended_ns
        events: Any = self._environment.events
        events.request.fire(
            request_type="POST",
            name=COMPLETIONS_PATH,
            response_time=((row.t_end_ns or began_ns) - began_ns) / 1e6,
            response_length=row.chars,
            exception=None if row.error is None else IntegrityError(row.error),
            context={},
            start_time=began_ns / 1e9,
            url=row.endpoint,
        )


def _plan_file() -> Path:
    path = os.environ.get(plans.PLAN_VARIABLE)
    if path is None:
        raise ConfigError(f"{plans.PLAN_VARIABLE} is not set; start this with `overproof load run WORKLOAD`")
    return Path(path)


def _guarded(function: Any, *arguments: Any) -> None:
    """Run a greenlet's body; what stops it stops the process, since a load without a record is worthless."""
    try:
        function(*arguments)
    except RecordError as error:
        _leave(str(error), plans.EXIT_RECORD)
    except SuiteError as error:
        _leave(str(error), 2)
    except Exception as error:
        _log.exception("the load broke")
        _leave(f"{type(error).__name__}: {error}", 4)


def _leave(text: str, code: int) -> None:
    sys.stderr.write(f"overproof load: {text}\n")
    sys.stderr.flush()
    os._exit(code)


class Dispatch(locust.User):
    """Walks the schedule; Locust starts one per process."""

    fixed_count = 1

    @locust.task
    def walk(self) -> None:
        """Run the whole load, then end Locust."""
        _guarded(lambda: _load_of(self.environment).run())
        gevent.spawn(self.environment.runner.quit)
        gevent.sleep(3600)  # until the runner ends this greenlet, so that Locust does not begin again


def _load_of(environment: Any) -> Load:
    if not hasattr(environment, "overproof_load"):
        environment.overproof_load = Load(environment)
    load: Load = environment.overproof_load
    return load


@_events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Any, **_: object) -> None:
    _raise_file_limit()
    environment.process_exit_code = 0  # failed requests are findings, not a failure of this process
    gevent.signal_handler(signal.SIGUSR1, lambda: _load_of(environment).dispatcher.finish())
    if not sys.stdin.isatty():
        _hold_lifeline(environment)


@_events.quitting.add_listener  # type: ignore[untyped-decorator]
def _end(environment: Any, **_: object) -> None:
    if hasattr(environment, "overproof_load"):
        _guarded(_load_of(environment).end, "stopped")


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _hold_lifeline(environment: Any) -> None:
    """Leave when standard input ends. In the hub: a thread of the standard library is a greenlet here."""
    watcher = gevent.get_hub().loop.io(0, 1)

    def look() -> None:
        if not os.read(0, 4096):
            watcher.stop()
            gevent.spawn(_leave_alone, environment)

    watcher.start(look)
    environment.overproof_lifeline = watcher  # a watcher that nobody holds is collected


def _leave_alone(environment: Any) -> None:
    _end(environment)
    _leave("the controller has gone", 1)

"""The load as Locust runs it: alone, as the master of several workers, as one of them, or as plain Locust.

The only file that imports locust, because that import patches the standard library. Locust by itself counts a
request when its head arrives and takes a stream that ends early for a success; here it gets one event per
request, when the answer has ended and has been found whole or not.

Started by ``overproof load``, this walks the schedule of a workload and records every request. Started by
hand, as ``locust -f loadtests/locustfile.py``, it has users like any locustfile, with our times in the table.
"""

from __future__ import annotations

# isort: off
import locust  # first: it patches the standard library
import locust.env
import locust.runners

# isort: on
import logging
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import gevent.queue

from loadtests import plan as plans
from loadtests.processes import master as messages
from loadtests.processes.load_process import Load
from loadtests.processes.master import Master
from loadtests.processes.worker import Place, bring, join, seal_for_master, tell
from loadtests.sending.plain_users import ROWS, WORKER_STRIDE, PlainUsers, load_plain
from loadtests.spec.inputs import EVENT as INPUTS
from probes.errors import RecordError, SuiteError, TargetError
from probes.json_types import JsonObject
from probes.request import Request
from reports.record import RunWriter, load_header
from reports.run import load_run

_START_DELAY_S = 0.2
_LOOK_S = 0.25
# A master that does not answer heartbeats for so long has gone.
_MASTER_SILENT_S = 8.0
_QUIT_WAIT_S = 60.0
_DONE_WAIT_S = 120.0
_SAY_S = 0.3  # that a last message takes to leave
_IS_OURS = any(name in os.environ for name in (plans.PLAN_VARIABLE, plans.JOIN_VARIABLE))
_log = logging.getLogger("overproof")
_events: Any = locust.events  # has no types


class IntegrityError(Exception):
    """What Locust shows for a failed request: the error kind."""


class _Role:
    """What this process is; one load, one master, or the users of plain Locust."""

    load: Load | None = None
    master: Master | None = None
    users: PlainUsers | None = None
    path: str = ""  # that requests are sent to
    numbers: Iterator[int] | None = None  # of plain Locust's prompts; None: no test has begun
    wire: _Wire | None = None
    environment: Any = None
    heard_s: float = 0.0  # when the master last answered


_role = _Role()


class _Wire:
    """The line to the master, over Locust's own messages."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._came = {kind: gevent.queue.Queue() for kind in messages.FROM_MASTER}
        for kind, queue in self._came.items():
            runner.register_message(kind, lambda msg, queue=queue, **_: queue.put(msg.data))

    def send(self, kind: str, data: JsonObject) -> None:
        """Send a message."""
        self._runner.send_message(kind, data)

    def wait(self, kind: str, timeout_s: float | None) -> JsonObject:
        """Return the next message of a kind."""
        try:
            data: JsonObject = self._came[kind].get(timeout=timeout_s)
        except gevent.queue.Empty:
            raise TargetError(f"the master did not answer within {timeout_s:g} s") from None
        return data


# One process alone.


def _walk_alone() -> None:
    plan = plans.load_plan(Path(os.environ[plans.PLAN_VARIABLE]))
    writer = RunWriter(plan.run, load_header(plan.run))
    _role.path = plan.spec.endpoint.path
    load = _role.load = Load(plan, writer, worker=0, on_written=_tell_locust)
    load.prepare(_guarded)
    load.run(t0_ns=time.time_ns() + round(_START_DELAY_S * 1e9))
    writer.event(
        "load", plans.MERGED, workers={"0": dict(load.tally.counts)}, lost=[], **load.tally.figures()
    )
    _role.environment.runner.quit()


def _tell_locust(row: Request) -> None:
    """Give Locust's own statistics a request that has ended."""
    began_ns = row.t_sent_ns or row.t_intended_ns
    _role.environment.events.request.fire(
        request_type="POST",
        name=_role.path,
        response_time=((row.t_end_ns or began_ns) - began_ns) / 1e6,
        response_length=row.chars,
        exception=None if row.error is None else IntegrityError(row.error),
        context={},
        start_time=began_ns / 1e9,
        url=row.endpoint,
    )


# A master.


def _prepare_master(runner: Any) -> None:
    plan = plans.load_plan(Path(os.environ[plans.PLAN_VARIABLE]))
    inputs = next((event.data for event in load_run(plan.run).events_of(INPUTS)), {})
    master = _role.master = Master(
        plan,
        RunWriter(plan.run, load_header(plan.run)),
        inputs=inputs,
        send=lambda client, kind, data: runner.send_message(kind, data, client_id=client),
    )
    for kind in messages.FROM_WORKER:
        runner.register_message(
            kind, lambda msg, kind=kind, **_: _guarded(master.take, msg.node_id, kind, msg.data)
        )
    gevent.spawn(_guarded, _lead, runner, master)


def _lead(runner: Any, master: Master) -> None:
    while not master.is_over:
        gevent.sleep(_LOOK_S)
        there = {client.id for client in runner.clients.all if client.state != locust.runners.STATE_MISSING}
        master.look(there, now_s=time.monotonic())
    master.write_merged()
    runner.quit()


# A worker.


def _prepare_worker(runner: Any) -> None:
    _role.heard_s = time.monotonic()
    _role.wire = _Wire(runner)
    gevent.spawn(_watch_master)
    gevent.spawn(_guarded, _work, runner, _role.wire)


def _work(runner: Any, wire: _Wire) -> None:
    place = join(wire, version=metadata.version("overproof"))
    _role.path = place.plan.spec.endpoint.path
    load = _role.load = Load(
        place.plan,
        place.writer,
        worker=place.number,
        on_written=_tell_locust,
        on_event=lambda event: tell(wire, place, event),
    )
    gevent.spawn(_finish_when_told, wire, load)
    load.prepare(_guarded)
    wire.send(
        messages.READY,
        {"ahead_ms": place.clock_ahead_ns / 1e6, "unsure_ms": place.clock_unsure_ns / 1e6},
    )
    t0_ns = int(wire.wait(messages.START, None)["t0_ns"])
    load.run(t0_ns=t0_ns + place.clock_ahead_ns, clock_ahead_ns=place.clock_ahead_ns)
    if place.is_elsewhere:
        seal_for_master(place)
        bring(wire, place)
    wire.send(messages.ENDED, load.report())
    wire.wait(messages.DONE, _DONE_WAIT_S)
    _leave_place(place)
    gevent.sleep(_QUIT_WAIT_S)  # Locust's master ends us
    runner.quit()


def _leave_place(place: Place) -> None:
    """Take away what has been brought to the master's record."""
    if place.is_elsewhere:
        place.writer.close()
        shutil.rmtree(place.writer.path, ignore_errors=True)


def _finish_when_told(wire: _Wire, load: Load) -> None:
    wire.wait(messages.FINISH, None)
    load.dispatcher.finish()


def _watch_master() -> None:
    while time.monotonic() - _role.heard_s < _MASTER_SILENT_S:
        gevent.sleep(0.5)
    _end()
    kept = "" if _role.load is None else f"; what it had written is in {_role.load.folder}"
    _leave(f"the master has gone{kept}", plans.EXIT_TARGET)


@_events.heartbeat_received.add_listener  # type: ignore[untyped-decorator]
def _note_heartbeat(**_: object) -> None:
    _role.heard_s = time.monotonic()


@_events.report_to_master.add_listener  # type: ignore[untyped-decorator]
def _report(data: dict[str, Any], **_: object) -> None:
    if _role.load is not None:
        data["overproof"] = _role.load.report()


@_events.worker_report.add_listener  # type: ignore[untyped-decorator]
def _take_report(client_id: str, data: dict[str, Any], **_: object) -> None:
    if _role.master is not None and "overproof" in data:
        _role.master.take_report(client_id, data["overproof"])


# Plain Locust.


class ChatUser(locust.User):
    """A user of plain Locust: asks, waits for the whole answer, thinks, asks again."""

    @locust.task
    def chat(self) -> None:
        """Send one request; in a run of ours the schedule does that, and users stand idle."""
        users = _role.users
        if users is None:
            gevent.sleep(3600)
            return
        row = users.ask()
        _tell_locust(row)
        for name, unit, read in ROWS:
            entry = self.environment.stats.get(name, unit)  # in the table, but in no sum of requests
            for value in read(row):
                entry.log(value, 0)
        gevent.sleep(users.think_s())


@_events.test_start.add_listener  # type: ignore[untyped-decorator]
def _begin_plain(environment: Any, **_: object) -> None:
    """Find the endpoint, with the address that the command line or the web page gives."""
    if _IS_OURS or isinstance(environment.runner, locust.runners.MasterRunner):
        return
    options = environment.parsed_options
    if _role.numbers is None:
        _role.numbers = count(_worker_index(environment.runner) * WORKER_STRIDE)
    try:
        _role.users = load_plain(
            options.workload, host=environment.host, seed=options.seed, numbers=_role.numbers
        )
        _role.path = _role.users.path
    except SuiteError as error:
        _log.error("%s", error)
        environment.process_exit_code = 3 if isinstance(error, TargetError) else 2
        gevent.spawn(environment.runner.quit if options.headless else environment.runner.stop)


def _worker_index(runner: Any) -> int:
    """Return which of the workers this is; 0 where there is no master."""
    return runner.worker_index if isinstance(runner, locust.runners.WorkerRunner) else 0


@_events.test_stop.add_listener  # type: ignore[untyped-decorator]
def _forget_users(**_: object) -> None:
    """Let the next test of the web page begin anew, perhaps with another host."""
    if _role.users is not None:
        _role.users.close()
        _role.users = None


@_events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: Any, **_: object) -> None:
    parser.set_defaults(web_host="127.0.0.1", master_bind_host="127.0.0.1")  # Locust's: everybody
    parser.add_argument(
        "--workload",
        env_var="OVERPROOF_WORKLOAD",
        include_in_web_ui=False,
        help="Workload file: prompts, endpoint, think time. Users and their number are Locust's.",
    )
    parser.add_argument("--seed", type=int, default=1, include_in_web_ui=False, help="Seed of the prompts.")


# All of them.


def _guarded(function: Callable[..., Any], *arguments: Any) -> None:
    """Run a greenlet's body; what stops it stops the process, since a load without a record is worthless."""
    try:
        function(*arguments)
    except RecordError as error:
        _fail(str(error), plans.EXIT_RECORD)
    except TargetError as error:
        _fail(str(error), plans.EXIT_TARGET)
    except SuiteError as error:
        _fail(str(error), 2)
    except Exception as error:
        _log.exception("the load broke")
        _fail(f"{type(error).__name__}: {error}", 4)


def _fail(text: str, code: int) -> None:
    """Tell the others, and leave; they may send us away before we do."""
    _say(text)
    if _role.environment is not None:
        _role.environment.process_exit_code = code
    if _role.wire is not None:
        _role.wire.send(messages.FAILED, {"reason": text, "is_config": code == 2})
        gevent.sleep(_SAY_S)
    if _role.master is not None:
        _role.environment.runner.send_message("quit")
        gevent.sleep(_SAY_S)
    os._exit(code)


def _say(text: str) -> None:
    sys.stderr.write(f"overproof load: {text}\n")
    sys.stderr.flush()


def _leave(text: str, code: int) -> None:
    _say(text)
    os._exit(code)


@_events.init.add_listener  # type: ignore[untyped-decorator]
def _prepare(environment: Any, **_: object) -> None:
    _raise_file_limit()
    _role.environment = environment
    if not _IS_OURS:
        return
    environment.process_exit_code = 0  # failed requests are findings, not a failure of this process
    gevent.signal_handler(signal.SIGUSR1, _finish)
    if isinstance(environment.runner, locust.runners.MasterRunner):
        _guarded(_prepare_master, environment.runner)
    elif isinstance(environment.runner, locust.runners.WorkerRunner):
        _prepare_worker(environment.runner)
    else:
        gevent.spawn(_guarded, _walk_alone)


def _finish() -> None:
    """Send nothing new, and end when all has been answered."""
    if _role.master is not None:
        _role.master.finish()
    elif _role.load is not None:
        _role.load.dispatcher.finish()


@_events.quitting.add_listener  # type: ignore[untyped-decorator]
def _end(**_: object) -> None:
    if _role.load is not None:
        _guarded(_role.load.end, "stopped")
    if _role.master is not None:
        _guarded(_role.master.write_merged)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _hold_lifeline() -> Any:
    """Leave when standard input ends. In the hub: a thread of the standard library is a greenlet here."""
    watcher = gevent.get_hub().loop.io(0, 1)

    def look() -> None:
        if not os.read(0, 4096):
            watcher.stop()
            gevent.spawn(_leave_alone)

    watcher.start(look)
    return watcher  # a watcher that nobody holds is collected


def _leave_alone() -> None:
    _end()
    _leave("the controller has gone", 1)


# From the first moment: a worker may wait for its master for minutes before Locust is ready.
_lifeline = _hold_lifeline() if _IS_OURS and not sys.stdin.isatty() else None

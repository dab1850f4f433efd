"""One host of a fleet, from the connection to its record. What goes wrong is a result, never an error."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from burnin.fleet.carry import Carrier
from burnin.fleet.host import Host
from burnin.fleet.launchers.channel import Channel, Launcher, Program
from burnin.fleet.launchers.hello import NotBegun
from burnin.launcher import longest_s
from burnin.node.order import Order, order_to_json
from probes.errors import SuiteError
from probes.event import Event
from probes.json_types import JsonObject
from probes.ssh import NotLetIn
from reports.record import RunWriter, create_run
from reports.run import FINISHED, INTERRUPTED

# States of a host, as the table ``host`` names them.
FINISHED_STATE, LOST, UNREACHABLE, REFUSED = "finished", "lost", "unreachable", "refused"
UNPERMITTED, NOT_STARTED, INTERRUPTED_STATE = "unpermitted", "failed to start", "interrupted"
UNABLE = (UNREACHABLE, REFUSED, UNPERMITTED, NOT_STARTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResult:
    """What became of a host."""

    host: Host
    state: str
    detail: str = ""
    seconds: float = 0.0
    clock_offset_s: float | None = None  # None: its clock was never seen
    path: Path | None = None  # None: it has no record


@dataclass(frozen=True, slots=True, kw_only=True)
class HostJob:
    """What every host is put through."""

    fleet_run: Path
    program: Program
    seed: int
    spec: JsonObject  # what the record of each host says on top of the order
    start_within_s: float
    stop: threading.Event


def run_host(
    host: Host, order: Order, launcher: Launcher, job: HostJob, on_event: Callable[[Event], None]
) -> HostResult:
    """Run one host's burn-in into a record of its own under the fleet's."""
    began = time.monotonic()
    try:
        channel = launcher.start(host, job.program, within_s=job.start_within_s)
    except SuiteError as error:
        return HostResult(
            host=host,
            state=_state_of(error),
            detail=_without_name(host, error),
            seconds=time.monotonic() - began,
        )
    try:
        path = job.fleet_run / "hosts" / host.name
        spec = {**job.spec, "order": order_to_json(order), "launcher": host.access.launcher}
        writer = create_run(
            path.parent, kind="burnin", spec=spec, seed=job.seed, is_child=True, path=path, host=host.name
        )
        with writer:
            return _follow(host, order, channel, writer, job, on_event, began)
    except SuiteError as error:  # the record can no longer be written
        return HostResult(host=host, state=LOST, detail=str(error), seconds=time.monotonic() - began)
    finally:
        channel.end()


def _follow(
    host: Host,
    order: Order,
    channel: Channel,
    writer: RunWriter,
    job: HostJob,
    on_event: Callable[[Event], None],
    began: float,
) -> HostResult:
    writer.event("launcher", "host.begun", begin_s=channel.begin_s)
    carrier = Carrier(channel=channel, writer=writer, host=host.name, on_event=on_event)
    lost = carrier.carry(order, deadline_s=longest_s(order), stop=job.stop)
    if job.stop.is_set() and lost is not None:
        writer.event("controller", INTERRUPTED, reason=lost)
        state = INTERRUPTED_STATE
    else:
        writer.event("controller", FINISHED)
        state = FINISHED_STATE if lost is None else LOST
    return HostResult(
        host=host,
        state=state,
        detail=lost or "",
        seconds=time.monotonic() - began,
        clock_offset_s=carrier.offset_s,
        path=writer.path,
    )


def _state_of(error: SuiteError) -> str:
    if isinstance(error, NotBegun):
        return NOT_STARTED
    return REFUSED if isinstance(error, NotLetIn) else UNREACHABLE


def _without_name(host: Host, error: SuiteError) -> str:
    """Return what went wrong; the table has the name in a column of its own."""
    return re.sub(rf"^{re.escape(host.name)}(?: \([^)]*\))?: ", "", str(error))

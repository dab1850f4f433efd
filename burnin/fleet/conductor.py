"""Runs a whole fleet: as many hosts at once as limits and power caps allow, each for itself.

Hosts run in threads; only this one writes the fleet's own record. A host that is lost is a row in it, and the
others go on.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from burnin.fleet.host import Fleet, Host
from burnin.fleet.host_run import (
    FINISHED_STATE,
    INTERRUPTED_STATE,
    LOST,
    UNPERMITTED,
    HostJob,
    HostResult,
    run_host,
)
from burnin.fleet.judges import Judges
from burnin.fleet.launchers.channel import Launcher
from burnin.fleet.power import may_start, phase_offsets_s, why_never
from burnin.node.order import PHASE_OFFSET, Order, StageOrder
from probes.errors import RecordError
from probes.event import Event
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import RunWriter

HOSTS_MAX = 512  # at once
STEP_PERIOD_S = 2.0  # of the power stage: a second of load, a second of none
STOP_WITHIN_S = 15.0
_UNABLE_RULES = ("agent", "devices", "worker", "foreign-process")


@dataclass(slots=True, kw_only=True)
class HostLine:
    """What is known of a host while it runs, for whoever watches."""

    state: str = "waiting"
    stage: str = ""
    detail: str = ""
    outcome: Outcome | None = None  # None: not judged yet


@dataclass(slots=True, kw_only=True)
class Conductor:
    """One fleet being run."""

    fleet: Fleet
    order: Order
    job: HostJob
    writer: RunWriter
    launcher_of: Callable[[Host], Launcher]
    hosts_max: int = HOSTS_MAX
    lines: dict[str, HostLine] = field(default_factory=dict)
    able: list[str] = field(default_factory=list)  # hosts that are good enough to be tested with others
    on_change: Callable[[], None] = lambda: None
    _done: queue.SimpleQueue[tuple[HostResult, JsonObject]] = field(default_factory=queue.SimpleQueue)
    _running: dict[str, Host] = field(default_factory=dict)

    def run(self, hosts: Iterable[Host], judges: Judges) -> list[HostResult]:
        """Run these hosts and return what became of each.

        Raises:
            RecordError: the record can no longer be written.
            Interrupted: somebody stopped us; every agent has been told then, and the rows are written.
        """
        everybody = list(hosts)
        self.lines.update({host.name: HostLine() for host in everybody})
        results = [self._refuse(host, why) for host in everybody if (why := why_not(host, self.fleet))]
        refused = {result.host.name for result in results}
        waiting = [host for host in everybody if host.name not in refused]
        offsets = self._phase_offsets(waiting)
        try:
            while waiting or self._running:
                waiting = self._start_some(waiting, offsets, judges)
                results += self._take(within_s=0.5)
        finally:
            self.job.stop.set()
            results += self._take_rest()
        return results

    def _phase_offsets(self, hosts: list[Host]) -> dict[str, float]:
        names = [host.name for host in hosts]
        drawn = random.Random(f"{self.job.seed}/phases").sample(range(len(names)), len(names))
        order = dict(zip(names, drawn, strict=True))
        return phase_offsets_s(names, period_s=STEP_PERIOD_S, order=order)

    def _start_some(self, waiting: list[Host], offsets: Mapping[str, float], judges: Judges) -> list[Host]:
        """Start those that may; return the others."""
        later = []
        for host in waiting:
            running = list(self._running.values())
            if len(running) < self.hosts_max and may_start(host, running, self.fleet):
                self._start(host, offsets[host.name], judges)
            else:
                later.append(host)
        return later

    def _refuse(self, host: Host, why: str) -> HostResult:
        result = HostResult(host=host, state=UNPERMITTED, detail=why)
        self._write_down(result, {})
        return result

    def _start(self, host: Host, offset_s: float, judges: Judges) -> None:
        self.lines[host.name].state = "connecting"
        self.writer.event("controller", "host.started", subject=host.name)
        order = replace(self.order, stages=tuple(_in_phase(stage, offset_s) for stage in self.order.stages))
        expected = host.expected.gpus
        if expected is not None and order.device != "cpu":
            order = replace(order, gpus_expected=expected)
        self._running[host.name] = host
        threading.Thread(target=self._follow, args=(host, order, judges), name=host.name, daemon=True).start()

    def _follow(self, host: Host, order: Order, judges: Judges) -> None:
        result = HostResult(host=host, state=LOST, detail="its thread broke")
        judged: JsonObject = {}
        try:
            launcher = self.launcher_of(host)
            result = run_host(host, order, launcher, self.job, lambda event: self._note(host, event))
            if result.path is not None:
                self.lines[host.name].state = "judging"
                judged = judges.judge(result.path)
        except RecordError as error:
            result = replace(result, detail=f"{result.detail} {error}".strip())
        except Exception as error:  # a bug of ours on one host must not end the burn-in of the others
            result = replace(result, state=LOST, detail=f"overproof broke: {type(error).__name__}: {error}")
        finally:
            self._done.put((result, judged))

    def _note(self, host: Host, event: Event) -> None:
        line = self.lines[host.name]
        line.state = "running"
        if event.kind == "stage.started":
            line.stage = str(event.data.get("stage", ""))[:20]

    def _take(self, *, within_s: float) -> list[HostResult]:
        """Write down the hosts that are done."""
        taken = []
        deadline = time.monotonic() + within_s
        while True:
            try:
                result, judged = self._done.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                break
            self._running.pop(result.host.name, None)
            self._write_down(result, judged)
            taken.append(result)
            deadline = 0
        self.on_change()
        return taken

    def _write_down(self, result: HostResult, judged: JsonObject) -> None:
        self.note(result, judged)
        line = self.lines[result.host.name]
        line.state, line.detail, line.outcome = result.state, result.detail, outcome_of(result, judged)

    def note(self, result: HostResult, judged: JsonObject) -> None:
        """Put a host into the fleet's tables."""
        write_rows(self.writer, result, judged)
        if is_able(result, judged):
            self.able.append(result.host.name)

    def _take_rest(self) -> list[HostResult]:
        """Wait for the hosts that still run to end, once they have been told to."""
        taken: list[HostResult] = []
        deadline = time.monotonic() + STOP_WITHIN_S
        while self._running and time.monotonic() < deadline:
            taken += self._take(within_s=0.2)
        for host in self._running.values():
            result = HostResult(host=host, state=INTERRUPTED_STATE, detail="did not end in time")
            self._write_down(result, {})
            taken.append(result)
        return taken


def why_not(host: Host, fleet: Fleet) -> str | None:
    """Return why a host is not touched; None: it may be."""
    if not host.permission:
        return "nobody says that it is free: drain it, reserve it, or list it (permission: listed)"
    return why_never(host, fleet)


def _in_phase(stage: StageOrder, offset_s: float) -> StageOrder:
    """Shift the steps of the power stage, so that the nodes of a hall do not draw in step."""
    return (
        replace(stage, options={**stage.options, PHASE_OFFSET: offset_s}) if stage.name == "power" else stage
    )


def outcome_of(result: HostResult, judged: JsonObject) -> Outcome:
    """Return the outcome of a host; one without a finished record has none that could pass."""
    found = Outcome(judged["outcome"]) if judged else Outcome.INCONCLUSIVE
    if found is Outcome.PASS and result.state != FINISHED_STATE:
        return Outcome.INCONCLUSIVE
    return found


def is_able(result: HostResult, judged: JsonObject) -> bool:
    """Say whether a host can be tested with others: what is bad alone would only drag them down."""
    if result.state != FINISHED_STATE or outcome_of(result, judged) is Outcome.FAIL:
        return False
    told = judged.get("tables", {}).get("host_finding", ())
    return not any(row["rule"] in _UNABLE_RULES for row in told)


def write_rows(writer: RunWriter, result: HostResult, judged: JsonObject) -> None:
    """Put what a host adds into the fleet's tables."""
    host, now_ns = result.host, time.time_ns()
    row: JsonObject = {
        "t_ns": now_ns,
        "host": host.name,
        "state": result.state,
        "outcome": outcome_of(result, judged).value,
        "run": str(result.path.relative_to(writer.path)) if result.path else "",
        "seconds": round(result.seconds, 3),
        "clock_offset_s": result.clock_offset_s,
        "detail": result.detail,
    }
    place = host.place
    row |= {name: getattr(place, name) for name in ("rack", "pdu", "hall", "switch", "nvlink_domain")}
    for table, rows in judged.get("tables", {}).items():
        for each in rows:
            writer.sample(table, {"t_ns": now_ns, "host": host.name, **each})
    writer.sample("host", row)
    kind = "host.lost" if result.state == LOST else "host.finished"
    writer.event("controller", kind, subject=host.name, state=result.state, detail=result.detail)

"""A recorded run, opened for reading: whatever is there, however it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from probes.child import is_alive
from probes.event import Event, event_from_json
from probes.finding import Finding, finding_from_json, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import EVENTS_FILE, FINDINGS_FILE, RunHeader, load_header

# The event that a run writes when it has done all that it set out to do.
FINISHED = "run.finished"
INTERRUPTED = "run.interrupted"
STOPPED = "run.stopped"  # something made it impossible to go on, such as a full disk
CRASHED = "run.crashed"  # a bug of ours
RESUMED = "run.resumed"  # somebody went on with a run that had ended before it was done
CLOCK_OFFSET = "clock.offset"  # of the host that it names, as measured: offset_s is its clock minus ours
_ENDS = {FINISHED: "finished", INTERRUPTED: "interrupted", STOPPED: "stopped", CRASHED: "crashed"}


@dataclass(frozen=True)
class Run:
    """The folder of one run. Reading is lazy; a torn last line (a crash mid-write) is left out."""

    path: Path
    header: RunHeader

    @cached_property
    def events(self) -> list[Event]:
        """The timeline in order of time, clocks of other hosts corrected to the controller's."""
        events = (_corrected(event, self.clock_offset_s) for event in self._events)
        return sorted(events, key=lambda event: event.t_ns)

    @cached_property
    def _events(self) -> list[Event]:
        return list(_read_events(self.path / EVENTS_FILE))

    @cached_property
    def clock_offset_s(self) -> dict[str, float]:
        """By how much each host's clock is ahead of the controller's; the last measurement is the best."""
        measured = (event.data for event in self._events if event.kind == CLOCK_OFFSET)
        return self.header.clock_offset_s | {str(m["subject"]): float(m["offset_s"]) for m in measured}

    @cached_property
    def findings(self) -> list[Finding]:
        """What judging concluded; empty where nobody has judged yet.

        A line that cannot be read may have been a failure: it counts as undecided, never as nothing.
        """
        path = self.path / FINDINGS_FILE
        findings: list[Finding] = []
        unreadable = count_unreadable(path)
        for row in read_ndjson(path):
            try:
                findings.append(finding_from_json(row))
            except (TypeError, ValueError, AttributeError):
                unreadable += 1
        return [*findings, *([_lost_findings(self, unreadable)] if unreadable else [])]

    @property
    def outcome(self) -> Outcome:
        """The merged outcome; a run that has no findings or did not finish is never PASS."""
        merged = verdict(self.findings)
        if self.state != "finished" and merged is Outcome.PASS:
            return Outcome.INCONCLUSIVE
        return merged

    @property
    def state(self) -> str:
        """Return finished, running, interrupted (also after kill -9), stopped or crashed."""
        last = self.events_of(*_ENDS, RESUMED)[-1:]
        if last and last[0].kind in _ENDS:
            return _ENDS[last[0].kind]
        pid, started = self.header.pid, self.header.pid_start_time
        if last:
            pid, started = int(last[0].data["pid"]), last[0].data["start_time"]
        return "running" if is_alive(pid, started) else "interrupted"

    def events_of(self, *kinds: str) -> list[Event]:
        """Return the events of these kinds, in order of time."""
        return [event for event in self.events if event.kind in kinds]


def _lost_findings(run: Run, lines: int) -> Finding:
    return Finding(
        rule="completeness",
        subject=f"run:{run.header.id}",
        outcome=Outcome.INCONCLUSIVE,
        observed=f"{lines} lines of {FINDINGS_FILE} cannot be read",
        expected="every finding can be read",
        next_step=f"judge the record again: overproof judge {run.path}",
    )


def load_run(path: Path) -> Run:
    """Open a run folder.

    Raises:
        ConfigError: it is not one.
    """
    folder = path.resolve()
    return Run(path=folder, header=load_header(folder))


def read_ndjson(path: Path) -> Iterator[JsonObject]:
    """Yield the whole lines of a file; a missing file has none, a torn or garbled line is passed over."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            row = _parse(line)
            if isinstance(row, dict):
                yield row


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def count_unreadable(path: Path) -> int:
    """Return how many lines of an NDJSON file are torn or garbled; a missing file has none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return sum(1 for line in file if line.strip() and not isinstance(_parse(line), dict))
    except FileNotFoundError:
        return 0


def _read_events(path: Path) -> Iterator[Event]:
    for row in read_ndjson(path):
        try:
            yield event_from_json(row)
        except ValueError:
            continue


def _corrected(event: Event, offset_s: dict[str, float]) -> Event:
    offset = offset_s.get(event.host, 0.0)
    if not offset:
        return event
    return Event(
        t_ns=event.t_ns - round(offset * 1e9),
        host=event.host,
        source=event.source,
        kind=event.kind,
        data=event.data,
    )

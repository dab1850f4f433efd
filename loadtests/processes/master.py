"""The master of several load processes: who has which share, one start for all, what they report, their rows.

It knows nothing of Locust: messages come in by ``take``, go out by ``send``, and ``look`` is called often.
A worker keeps its share for good. One that is lost after the start is missing in the record, and says so
there: its share of the schedule is in the past, and nobody can send it in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from loadtests import plan as plans
from loadtests.plan import LoadPlan, plan_to_json
from loadtests.processes.parts import PartTaker
from loadtests.processes.tally import Tally, tally_from_json
from probes.errors import ConfigError, TargetError
from probes.event import Event
from probes.json_types import JsonObject
from reports.record import RunWriter

# Kinds of messages; the master answers the first three.
HELLO, CLOCK, PART = "overproof.hello", "overproof.clock", "overproof.part"
READY, HAPPENED, STOPPED = "overproof.ready", "overproof.event", "overproof.stopped"
ENDED, FAILED = "overproof.ended", "overproof.failed"
PLAN, START, FINISH, DONE = "overproof.plan", "overproof.start", "overproof.finish", "overproof.done"
FROM_WORKER = (HELLO, CLOCK, PART, READY, HAPPENED, STOPPED, ENDED, FAILED)
FROM_MASTER = (PLAN, CLOCK, START, FINISH, PART, DONE)

# All hear of the start well before it.
_START_DELAY_S = 1.0
# Locust misses a worker after three seconds; so much longer, and it is lost.
_LOST_AFTER_S = 3.0
_FIGURES_S = 1.0
_LIVE = ("ttft_ms", "itl_ms", "e2e_ms")

Send = Callable[[str, str, JsonObject], None]  # client, kind, data


@dataclass(slots=True)
class Member:
    """One worker as the master knows it."""

    client: str
    number: int
    host: str
    folder: str  # where its record is, if that is not in the run's folder
    taker: PartTaker
    is_ready: bool = False
    is_ended: bool = False
    is_collected: bool = False
    is_lost: bool = False
    away_since_s: float | None = None  # None: it is there
    tally: Tally = field(default_factory=Tally)
    arrivals: int = 0
    in_flight: int = 0
    is_final: bool = False  # lost for good: what it sends makes no whole any more

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected of it."""
        return self.is_lost or (self.is_ended and self.is_collected)


class Master:
    """Drives a crew through one load."""

    def __init__(self, plan: LoadPlan, writer: RunWriter, *, inputs: JsonObject, send: Send) -> None:
        self._plan, self._writer, self._inputs, self._send = plan, writer, inputs, send
        self._members: dict[str, Member] = {}
        self._begun_s = time.monotonic()
        self._figures_due_s = self._begun_s
        self.has_started = False
        self.has_written = False

    @property
    def is_over(self) -> bool:
        """Whether every worker has ended and its rows are here, or it is lost."""
        return self.has_started and all(member.is_over for member in self._members.values())

    def take(self, client: str, kind: str, data: JsonObject) -> None:
        """Take a worker's message.

        Raises:
            ConfigError, TargetError: a worker cannot take part, and the load has not begun.
            RecordError: what a worker sends cannot be recorded.
        """
        try:
            self._take(client, kind, data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._note_garbled(
                client, f"a message {kind} that makes no sense: {type(error).__name__}: {error}"
            )

    def _note_garbled(self, client: str, reason: str) -> None:
        """Anybody may send anything to an open port: it costs the sender's share, and nothing else."""
        member = self._members.get(client)
        if member is not None:
            self._lose(member, reason, is_final=True)
        else:
            self._writer.event("load", plans.REFUSED, host=client[:100], reason=reason)

    def _take(self, client: str, kind: str, data: JsonObject) -> None:
        member = self._members.get(client)
        if kind == HELLO:
            self._greet(client, data)
        elif kind == CLOCK:
            self._send(client, CLOCK, data | {"now_ns": time.time_ns()})
        elif member is None:
            return  # refused before, or of another run
        elif kind == READY:
            self._note_ready(member, data)
        elif kind == HAPPENED:
            self._note_event(member, data)
        elif kind == PART:
            member.taker.take(data)
            self._send(client, PART, {"offset": data["offset"]})
        elif kind == STOPPED:
            self.finish()  # a guard of one worker ends the load of all
        elif kind == ENDED:
            self._note_ended(member, data)
        elif kind == FAILED:
            self._note_failed(member, str(data["reason"]), is_config=bool(data.get("is_config")))

    def take_report(self, client: str, data: JsonObject) -> None:
        """Take what a worker's report to Locust's master says of its rows."""
        member = self._members.get(client)
        if member is not None:
            member.tally = tally_from_json(data)
            member.arrivals, member.in_flight = int(data["arrivals"]), int(data["in_flight"])

    def finish(self) -> None:
        """Have all workers send nothing new, and end."""
        for client in self._members:
            self._send(client, FINISH, {})

    # Before the start.

    def _greet(self, client: str, data: JsonObject) -> None:
        if client in self._members:  # it asks again: its network was away
            self._send_plan(self._members[client])
            return
        number, reason = self._number_for(data)
        if number is None:
            self._writer.event("load", plans.REFUSED, host=str(data["host"]), reason=reason)
            self._send(client, PLAN, {"refused": reason})
            return
        member = Member(
            client=client,
            number=number,
            host=str(data["host"]),
            folder=str(data.get("folder", "")),
            taker=PartTaker(self._plan.run, number),
        )
        self._members[client] = member
        self._writer.event("load", plans.JOINED, worker=number, host=member.host, folder=member.folder)
        self._send_plan(member)

    def _number_for(self, data: JsonObject) -> tuple[int | None, str]:
        """Return the share of a worker that asks for one, or why there is none."""
        crew, ours = self._plan.crew, self._writer.header.versions.get("overproof", "")
        taken = {member.number for member in self._members.values()}
        asked = data.get("number")
        numbers = range(crew.processes, crew.workers) if asked is None else (int(asked),)
        free = [number for number in numbers if number not in taken]
        if data.get("version") != ours:
            return None, f"it is overproof {data.get('version')!r}, the master {ours!r}"
        if self.has_started:
            return None, "the load has begun; every share of it has its worker"
        if not free:
            return None, f"all {len(numbers)} places are taken"
        return free[0], ""

    def _send_plan(self, member: Member) -> None:
        self._send(
            member.client,
            PLAN,
            {
                "plan": plan_to_json(self._plan),
                "run": self._plan.run.name,
                "number": member.number,
                "inputs": self._inputs,
            },
        )

    def _note_ready(self, member: Member, data: JsonObject) -> None:
        member.is_ready = True
        self._writer.event("load", plans.CLOCK_READ, worker=member.number, host=member.host, **data)
        ready = sum(member.is_ready for member in self._members.values())
        if ready == self._plan.crew.workers and not self.has_started:
            self.has_started = True
            t0_ns = time.time_ns() + round(_START_DELAY_S * 1e9)
            for client in self._members:
                self._send(client, START, {"t0_ns": t0_ns})

    # While it runs.

    def _note_event(self, member: Member, data: JsonObject) -> None:
        if data.get("kind") not in plans.OF_WORKERS:
            return
        self._writer.append_event(
            Event(
                t_ns=int(data["t_ns"]),
                host=member.host,
                source="load",
                kind=str(data["kind"]),
                data=dict(data["data"]) | {"worker": member.number},
            )
        )

    def _note_ended(self, member: Member, data: JsonObject) -> None:
        """Take a worker's last report: it has written every row, and brought its rows, where it had to."""
        self.take_report(member.client, data)
        member.is_ended = member.is_collected = True
        member.away_since_s = None
        self._writer.event("load", plans.COLLECTED, worker=member.number, host=member.host)
        self._send(member.client, DONE, {})

    def _note_failed(self, member: Member, reason: str, *, is_config: bool) -> None:
        where = f"worker {member.number} on {member.host}"
        if not self.has_started:
            raise (ConfigError if is_config else TargetError)(f"{where}: {reason}")
        self._lose(member, reason, is_final=True)

    def look(self, there: Collection[str], *, now_s: float) -> None:
        """Note who is there: ``there`` are the clients that Locust hears.

        Raises:
            TargetError: not all workers came in time.
        """
        for member in list(self._members.values()):
            self._look_at(member, is_away=member.client not in there, now_s=now_s)
        if not self.has_started and now_s - self._begun_s > self._plan.crew.join_s:
            raise TargetError(self._who_is_missing())
        if now_s >= self._figures_due_s:
            self._figures_due_s = now_s + _FIGURES_S
            self._write_figures()

    def _look_at(self, member: Member, *, is_away: bool, now_s: float) -> None:
        if member.is_ended:
            return
        if not is_away:
            member.away_since_s = None
            if member.is_lost and not member.is_final:
                member.is_lost = False
                self._writer.event("load", plans.CAME_BACK, worker=member.number, host=member.host)
            return
        member.away_since_s = member.away_since_s or now_s
        if now_s - member.away_since_s >= _LOST_AFTER_S and not member.is_lost:
            self._lose(member, "it does not answer any more")

    def _lose(self, member: Member, reason: str, *, is_final: bool = False) -> None:
        member.is_lost, member.is_final = True, is_final
        member.taker.abandon()
        self._writer.event(
            "load",
            plans.LOST,
            worker=member.number,
            host=member.host,
            reason=reason,
            folder=member.folder,
            rows_reported=member.tally.counts["rows"],
        )
        if not self.has_started:  # its share is free for another
            del self._members[member.client]

    def _who_is_missing(self) -> str:
        crew, members = self._plan.crew, self._members.values()
        ready = sum(member.is_ready for member in members)
        text = f"{len(members)} of {crew.workers} workers joined within {crew.join_s:g} s, {ready} are ready"
        return text + (
            f"; start them with `overproof load worker --master HOST --port {crew.port}`"
            if crew.joining
            else "; see locust.log in the run folder"
        )

    # What all of it comes to.

    def _merged(self) -> Tally:
        merged = Tally()
        for member in self._members.values():
            merged.merge(member.tally)
        return merged

    def _write_figures(self) -> None:
        members = self._members.values()
        row = {"t_ns": time.time_ns(), "subject": "load:all", "workers": len(self._members)}
        row |= {
            "ready": sum(member.is_ready for member in members),
            "lost": sum(member.is_lost for member in members),
            "arrivals": sum(member.arrivals for member in members),
            "in_flight": sum(member.in_flight for member in members),
        }
        merged = self._merged()
        row |= {f"{name}_p99": merged.histograms[name].quantile(0.99) for name in _LIVE}
        self._writer.sample("load", row | merged.counts)

    def write_merged(self) -> None:
        """Put into the record what all reports add up to, once."""
        if self.has_written:
            return
        self.has_written = True
        self._write_figures()
        self._writer.event(
            "load",
            plans.MERGED,
            workers={str(member.number): dict(member.tally.counts) for member in self._members.values()},
            lost=[member.number for member in self._members.values() if member.is_lost],
            **self._merged().figures(),
        )

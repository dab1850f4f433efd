"""Carries what an agent says into the record, and tells it all the while that we are there.

The other end may be broken or hostile: what it sends is bounded in length, in number and in rate, names
no file, and speaks for nobody but its own host. Every line to the agent asks for its clock as well.
"""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from burnin.fleet.launchers.channel import Channel
from burnin.node.crew import HEARTBEAT
from burnin.node.lifeline import CLOCK
from burnin.node.order import Order, order_to_line
from burnin.node.raw import RAW_BLOCK
from probes.errors import TargetError
from probes.event import SAMPLE, Event, event_from_line
from reports.record import RunWriter, open_for_append, write_atomically, write_whole
from reports.run import CLOCK_OFFSET

LOG_FILE = "agent.log"
RAW_FILE = "raw/gpu.ndjson.gz"
# The agent's heart beats every second; ending a child that is stuck in the kernel takes it a few seconds.
SILENCE_S = 20.0
ASK_EVERY_S = 2.0
LINE_BYTES_MAX = 1 << 20
TORN_LINES_MAX = 50
BYTES_AT_ONCE_MAX = 64 << 20  # on top of the rate: inventories at the start, raw readings at the end
BYTES_PER_S_MAX = 256 << 10  # eight GPUs and their workers need a tenth
SERIES_MAX = 64
_SERIES_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_OURS = ("controller", "launcher", "record")


class Lost(Exception):
    """The agent can no longer be followed; the text says why."""


@dataclass(slots=True, kw_only=True)
class Carrier:
    """One agent being followed."""

    channel: Channel
    writer: RunWriter
    host: str  # what the fleet calls it; its own name for itself is not asked
    on_event: Callable[[Event], None]
    silence_s: float = SILENCE_S
    offset_s: float | None = None  # its clock minus ours; None: it never answered
    _round_trip_s: float = float("inf")
    _rest: bytes = b""
    _bytes: int = 0
    _torn: int = 0
    _series: set[str] = field(default_factory=set)
    _log: bytes = b""

    def carry(self, order: Order, *, deadline_s: float, stop: threading.Event | None = None) -> str | None:
        """Give the order and follow it until the agent has finished; else return how it was lost.

        Raises:
            RecordError: the record can no longer be written.
        """
        try:
            self.channel.write(order_to_line(order).encode())
            self._follow(deadline_s, stop or threading.Event())
        except (Lost, TargetError) as error:
            self.writer.event("launcher", "agent.lost", reason=str(error))
            return str(error)
        finally:
            self._keep_log()
        return None

    def _follow(self, deadline_s: float, stop: threading.Event) -> None:
        began = heard_at = time.monotonic()
        asked_at = 0.0
        while not stop.is_set():
            now = time.monotonic()
            if now >= began + deadline_s:
                raise Lost("its time was up")
            if now >= heard_at + self.silence_s:
                raise Lost(f"silent for {self.silence_s:.0f} s")
            if now >= asked_at + ASK_EVERY_S:
                asked_at = now
                self.channel.write(b'{"%s":%d}\n' % (CLOCK.encode(), time.time_ns()))
                self._keep_log()
            if not self.channel.wait(min(ASK_EVERY_S / 2, self.silence_s / 2)):
                continue
            data = self.channel.read()
            if not data:
                raise Lost(f"it ended before it was done, exit code {self.channel.end()}")
            heard_at = time.monotonic()
            self._bytes += len(data)
            if self._bytes > BYTES_AT_ONCE_MAX + BYTES_PER_S_MAX * (heard_at - began):
                raise Lost(f"it sends without end: {self._bytes >> 20} MiB in {heard_at - began:.0f} s")
            if self._take(data):
                return
        raise Lost("we were told to stop")

    def _take(self, data: bytes) -> bool:
        """Put each whole line where it belongs; return whether one was the last."""
        *lines, self._rest = (self._rest + data).split(b"\n") if b"\n" in data else (self._rest + data,)
        if len(self._rest) > LINE_BYTES_MAX:
            raise Lost(f"it sent a line of more than {LINE_BYTES_MAX >> 20} MiB")
        return any(self._take_line(line) for line in lines)

    def _take_line(self, line: bytes) -> bool:
        event = self._parse(line)
        if event is None or event.kind == HEARTBEAT:
            return False
        if event.kind == CLOCK:
            self._note_clock(event)
            return False
        if event.kind == RAW_BLOCK:
            self._keep_raw(event)
            return False
        if event.kind == SAMPLE:
            self.writer.sample(event.source, {"t_ns": event.t_ns, "host": self.host, **event.data})
        else:
            self.writer.append_event(event)
        self.on_event(event)
        return event.kind == "agent.finished"

    def _parse(self, line: bytes) -> Event | None:
        """Return what a line says, under the name that we know its host by; None: it says nothing."""
        try:
            event = event_from_line(line.decode())
            if not self._is_its_own(event):
                raise ValueError("speaks for others")
        except (ValueError, RecursionError):
            self._torn += 1
            if self._torn > TORN_LINES_MAX:
                raise Lost(f"it sent {self._torn} lines that are no event, the last {line[:80]!r}") from None
            self.writer.event(
                "launcher", "line.torn", child="agent", line=line[:200].decode(errors="replace")
            )
            return None
        return replace(event, host=self.host)

    def _is_its_own(self, event: Event) -> bool:
        if event.kind != SAMPLE:
            is_ours = event.kind.startswith(("run.", "record.")) or event.kind == CLOCK_OFFSET
            return event.source not in _OURS and not is_ours
        self._series.add(event.source)
        return bool(_SERIES_NAME.fullmatch(event.source)) and len(self._series) <= SERIES_MAX

    def _note_clock(self, event: Event) -> None:
        """Take the offset from the exchange that took the shortest time: that one leaves the least room."""
        ours_ns = time.time_ns()
        asked_ns, heard_ns = event.data.get("asked_ns"), event.data.get("heard_ns")
        if not isinstance(asked_ns, int) or not isinstance(heard_ns, int):
            return
        round_trip_s = ((ours_ns - asked_ns) - (event.t_ns - heard_ns)) / 1e9
        if not 0 <= round_trip_s < self._round_trip_s / 2:
            return
        self._round_trip_s = round_trip_s
        self.offset_s = ((heard_ns - asked_ns) + (event.t_ns - ours_ns)) / 2e9
        said = {"subject": self.host, "offset_s": self.offset_s, "round_trip_s": round_trip_s}
        self.writer.event("launcher", CLOCK_OFFSET, **said)

    def _keep_raw(self, event: Event) -> None:
        try:
            block = base64.b64decode(str(event.data["gzip"]), validate=True)
        except (KeyError, ValueError):
            return
        path = self.writer.path / RAW_FILE
        descriptor = open_for_append(path)
        try:
            write_whole(descriptor, block, path)
        finally:
            os.close(descriptor)

    def _keep_log(self) -> None:
        """Keep the end of what agent and children wrote to standard error."""
        errors = self.channel.errors()
        if errors != self._log:
            self._log = errors
            write_atomically(self.writer.path / LOG_FILE, errors.decode(errors="replace"))

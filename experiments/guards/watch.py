"""Looks with every guard of a game day at what has been recorded so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.guards.guard import BREACHED, SEES, SERIES, Guard, Look, look_at_probe, look_at_traffic
from experiments.live.record import LiveRecord
from probes.json_types import JsonObject
from probes.slo import Slo
from probes.tail import Tail
from reports.record import SERIES_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """Why a guard stopped the game day."""

    guard: str
    state: str  # breached or blind
    observed: str


class GuardWatch:
    """The guards of one game day, and how long each has been blind."""

    def __init__(
        self, guards: Sequence[Guard], slos: Sequence[Slo], record: LiveRecord, folder: Path
    ) -> None:
        self.guards = guards
        self.looks = dict.fromkeys((guard.name for guard in guards), 0)
        self.seen: dict[str, Look] = {}  # by each guard, last
        self._slos = slos
        self._record = record
        self._tail = Tail(folder / SERIES_FOLDER / f"{SERIES}.ndjson")
        self._said: dict[str, JsonObject] = {}  # by each probe, last
        self._blind_since: dict[str, float] = {}

    def look(self) -> Trip | None:
        """Look once with each; return the first that has to stop the game day."""
        for guard, seen in self._looks():
            self.looks[guard.name] += 1
            self.seen[guard.name] = seen
            if seen.state == SEES:
                self._blind_since.pop(guard.name, None)
                continue
            since = self._blind_since.setdefault(guard.name, time.monotonic())
            if seen.state == BREACHED or time.monotonic() - since >= guard.window_s:
                return Trip(guard=guard.name, state=seen.state, observed=seen.observed)
        return None

    def first_blind(self) -> Trip | None:
        """Return a guard that does not see at this moment, before anything is broken."""
        for guard, seen in self._looks():
            if seen.state != SEES:
                return Trip(guard=guard.name, state=seen.state, observed=seen.observed)
        return None

    def _looks(self) -> list[tuple[Guard, Look]]:
        now_ns = time.time_ns()
        self._said |= {str(row["subject"]): row for row in self._tail.read()}
        requests = self._record.requests() if self.guards else []
        return [
            (g, look_at_traffic(g, requests, self._slos, now_ns=now_ns))
            if g.probe is None
            else (g, look_at_probe(g, self._said.get(f"guard:{g.name}"), now_ns=now_ns))
            for g in self.guards
        ]

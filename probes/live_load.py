"""The record of a load test while it runs, as far as a probe of live traffic needs it.

A request has its row once it is over, so rows alone would take silence for health: a server of which every
third answer hangs looks perfect. Each load process also counts what it has begun; what it began a while ago
and has no row is still under way, and may turn out good or bad.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import dataclass
from functools import cache
from os import environ
from pathlib import Path

from probes.child import is_alive
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.request import Request, request_from_json
from probes.tail import Tail

RUN_VARIABLE = "OVERPROOF_RUN"  # folder of the game day that we are part of; its load is in ``load/``
SILENCE_S = 5.0  # a load process writes its figures every second
_ENDED = (
    "load.arrivals_ended",
    "load.ended",
    "run.finished",
    "run.interrupted",
    "run.stopped",
    "run.crashed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The traffic that was due within a stretch of time."""

    run: Path
    start_ns: int
    end_ns: int
    requests: tuple[Request, ...]  # under way ones as rows of their own, of which nobody knows yet
    under_way: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end_ns - self.start_ns) / 1e9


class LiveLoad:
    """One load test that runs. Probes of several threads may ask at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header = _header(folder)
        self._events = Tail(folder / "events.ndjson")
        self._tails: dict[Path, Tail] = {}
        self._requests: list[Request] = []
        self._figures: dict[str, list[JsonObject]] = {}  # by load process
        self._over = ""  # the event that says that no more requests will come
        self._lock = threading.Lock()

    def read(self, *, window_s: float, settle_s: float) -> Stretch:
        """Return what was due within ``window_s``, up to ``settle_s`` ago.

        Raises:
            TargetError: nobody sends requests, or nobody says so.
        """
        with self._lock:
            self._update()
            now_ns = time.time_ns()
            self._see_that_it_lives(now_ns)
            end_ns = now_ns - round(settle_s * 1e9)
            start_ns = end_ns - round(window_s * 1e9)
            missing = self._missing(end_ns)
            inside = [r for r in self._requests if start_ns <= r.t_intended_ns < end_ns]
        return Stretch(
            run=self.folder,
            start_ns=start_ns,
            end_ns=end_ns,
            requests=(*inside, *(_under_way(i, end_ns) for i in range(missing))),
            under_way=missing,
        )

    @property
    def first_ns(self) -> int | None:
        """When the first request was due; None: none is over yet."""
        return min((r.t_intended_ns for r in self._requests), default=None)

    def _update(self) -> None:
        for event in self._events.read():
            kind = str(event.get("kind"))
            self._over = self._over or (kind if kind in _ENDED else "")
        for row in self._rows("requests/*.ndjson"):
            if row.get("t_intended_ns") is not None:
                self._requests.append(request_from_json(row))
        for row in self._rows("series/client-*.ndjson"):
            self._figures.setdefault(str(row["subject"]).removeprefix("client:"), []).append(row)

    def _rows(self, pattern: str) -> list[JsonObject]:
        paths = sorted(self.folder.glob(pattern))
        return [row for path in paths for row in self._tails.setdefault(path, Tail(path)).read()]

    def _see_that_it_lives(self, now_ns: int) -> None:
        if self._over:
            raise TargetError(f"load test {self.folder}: sends no more requests ({self._over})")
        if not is_alive(int(self.header["pid"]), self.header.get("pid_start_time")):
            raise TargetError(f"load test {self.folder}: its process is gone: nobody watches the service")
        latest = [int(rows[-1]["t_ns"]) for rows in self._figures.values()]
        if not latest:
            raise TargetError(f"load test {self.folder}: has not begun to send; give the probe wait_s")
        if now_ns - min(latest) > SILENCE_S * 1e9:
            raise TargetError(
                f"load test {self.folder}: a load process has said nothing for {SILENCE_S:g} s and more"
            )

    def _missing(self, end_ns: int) -> int:
        """Count what was begun before ``end_ns`` and is not over."""
        missing = 0
        for worker, figures in self._figures.items():
            row = next((row for row in reversed(figures) if int(row["t_ns"]) <= end_ns), None)
            if row is None:
                continue
            own = (r for r in self._requests if str(r.worker) == worker)
            begun = sum(r.t_intended_ns <= int(row["t_ns"]) for r in own)
            missing += max(0, int(row["arrivals"]) - begun)
        return missing


def _under_way(index: int, t_ns: int) -> Request:
    """Return the row of a request that may still turn out good: the rules count it as perhaps bad."""
    return Request(
        index=-1 - index, worker=-1, endpoint="", t_intended_ns=t_ns, t_sent_ns=None, t_first_ns=None,
        t_last_ns=None, t_end_ns=None, connect_ms=None, status=None, error="abandoned",
    )  # fmt: skip


def _header(folder: Path) -> JsonObject:
    try:
        header = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TargetError(f"load test {folder}: has no run.json that can be read: {error}") from error
    if not isinstance(header, dict) or header.get("kind") != "load":
        raise TargetError(f"{folder}: is not the run of a load test")
    return header


def find_load(run: str, out: str) -> LiveLoad:
    """Return the load test to look at: the one named, else the game day's own, else the newest that runs.

    Raises:
        TargetError: there is none.
    """
    if run:
        return _open(Path(run).resolve())
    if day := environ.get(RUN_VARIABLE):
        return _open(Path(day).resolve() / "load")
    found = []
    for path in Path(out).glob("*/run.json"):
        if path.parent.is_symlink():
            continue  # ``latest`` is one of them again
        with contextlib.suppress(TargetError):  # the run of another job
            header = _header(path.parent)
            if is_alive(int(header["pid"]), header.get("pid_start_time")):
                found.append((int(header["started_ns"]), path.parent.resolve()))
    if not found:
        raise TargetError(
            f"no load test runs under {Path(out).resolve()}: start `overproof load run WORKLOAD --out {out}`"
            ", or have the control experiments.controls start one"
        )
    return _open(max(found)[1])


@cache
def _open(folder: Path) -> LiveLoad:
    return LiveLoad(folder)

"""What traffic comes to while it flows: the figures that a live view and a Prometheus page show of a load.

Read from what the load processes put into the record, by another process than theirs, at most once a second
and only when somebody asks: it costs the load nothing. It says how things stand so far; judging is for the
end, over the whole record.
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probes.histogram import Histogram
from probes.json_types import JsonObject
from probes.metric import ITL, METRICS
from probes.request import Request, request_from_json
from probes.slo import Slo, count_bad
from probes.tail import Tail
from reports.record import REQUESTS_FOLDER, SERIES_FOLDER

NOW_S = 10.0  # what "now" looks back on
LOOK_EVERY_S = 1.0
# Of all load processes, a look: a tenth of a second of CPU time. What comes faster is shown by the newest.
BYTES_MAX = 1024 * 1024
TTFT = "ttft_ms"
SPREADS = (TTFT, ITL)
PERCENTS = (50, 90, 99)
_SECOND_NS = 1_000_000_000
_TAIL_BYTES = 4096


class _Stretch:
    """What the requests that ended in some stretch of time come to."""

    def __init__(self) -> None:
        self.ended = self.failed = 0
        self.errors: Counter[str] = Counter()
        self.spreads = {name: Histogram() for name in SPREADS}
        self.promises: dict[str, list[int]] = {}  # by name: how many broke it, of how many

    def add(self, rows: Sequence[Request], slos: Sequence[Slo]) -> None:
        for row in rows:
            self.ended += 1
            if row.error is not None and not row.is_hung_up:
                self.failed += 1
                self.errors[row.error] += 1
            if row.is_good:
                self.spreads[TTFT].add_all(METRICS[TTFT].read(row))
                self.spreads[ITL].add_all_us(row.gaps_us)
        for slo in slos:
            self._count(slo.name, *count_bad(slo, rows, slos))

    def merge(self, other: _Stretch) -> None:
        self.ended += other.ended
        self.failed += other.failed
        self.errors.update(other.errors)
        for name, histogram in other.spreads.items():
            self.spreads[name].merge(histogram)
        for name, counts in other.promises.items():
            self._count(name, *counts)

    def _count(self, name: str, bad: int, total: int) -> None:
        counts = self.promises.setdefault(name, [0, 0])
        counts[0] += bad
        counts[1] += total


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The requests that ended in the last seconds, or since the start."""

    ended: int = 0
    failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    # By metric and percent, of good answers; a metric without values is left out.
    percentiles: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    good_share: Mapping[str, float] = field(
        default_factory=dict
    )  # by promise; without requests it is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficFigures:
    """How a load goes."""

    now: Span = Span()
    whole: Span = Span()
    clients: Mapping[str, JsonObject] = field(default_factory=dict)  # the last figures of each load process
    merged: JsonObject | None = None  # of all of them together; None: they have written none yet
    offered_per_s: float | None = None  # arrivals that the schedule wanted; None: nothing to compare with yet
    answered_per_s: float | None = None
    is_sampled: bool = False  # more came than is read here: percentiles and shares are of a part

    @property
    def has_begun(self) -> bool:
        """Whether anything has been sent."""
        return bool(self.merged and self.merged.get("arrivals"))


class LiveTraffic:
    """Follows the record of one load test; may be asked from any thread."""

    def __init__(
        self,
        run: Path,
        slos: Sequence[Slo] = (),
        *,
        bytes_max: int = BYTES_MAX,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._run = run
        # A promise about stretches of time is shown by its requests: whole stretches are for judging.
        self.slos = tuple(dataclasses.replace(slo, window=None) for slo in slos)
        self._bytes_max, self._now_ns = bytes_max, now_ns
        self._lock = threading.Lock()
        self._parts: dict[Path, Tail] = {}
        self._recent: dict[int, _Stretch] = {}  # by the second in which the requests ended
        self._past = _Stretch()  # of all before
        self._arrivals: deque[tuple[int, int, int]] = deque()  # when, how many so far, how many ended
        self._looked_ns = 0
        self._figures = TrafficFigures()

    def figures(self) -> TrafficFigures:
        """Return how things stand; looked at anew once a second at most."""
        with self._lock:
            now_ns = self._now_ns()
            if now_ns - self._looked_ns >= LOOK_EVERY_S * _SECOND_NS:
                self._figures = self._look(now_ns)
                self._looked_ns = self._now_ns()
            return self._figures

    def _look(self, now_ns: int) -> TrafficFigures:
        self._take_rows()
        first = now_ns // _SECOND_NS - round(NOW_S)
        for second in [second for second in self._recent if second < first]:
            self._past.merge(self._recent.pop(second))
        now, whole = _Stretch(), _Stretch()
        for stretch in self._recent.values():
            now.merge(stretch)
        whole.merge(self._past)
        whole.merge(now)
        # Once the record is sealed these files are gone: what they said last still stands.
        clients = read_latest(self._run) or self._figures.clients
        merged = read_merged(self._run) or self._figures.merged
        return TrafficFigures(
            now=_span(now),
            whole=_with_reported(_span(whole), merged),
            clients=clients,
            merged=merged,
            is_sampled=any(tail.skipped_bytes for tail in self._parts.values()),
            **self._rates(now_ns, merged),
        )

    def _take_rows(self) -> None:
        by_second: dict[int, list[Request]] = {}
        paths = sorted((self._run / REQUESTS_FOLDER).glob("*.ndjson"))
        for path in paths:
            part = self._parts.setdefault(path, Tail(path))
            for row in part.read(bytes_max=self._bytes_max // len(paths)):
                try:
                    request = request_from_json(row)
                except TypeError:  # a row of another version lacks what we need
                    continue
                ended_ns = request.t_intended_ns if request.t_end_ns is None else request.t_end_ns
                by_second.setdefault(ended_ns // _SECOND_NS, []).append(request)
        for second, requests in by_second.items():
            self._recent.setdefault(second, _Stretch()).add(requests, self.slos)

    def _rates(self, now_ns: int, merged: JsonObject | None) -> dict[str, float]:
        if merged is None:
            return {}
        t_ns = int(merged.get("t_ns", now_ns))
        if not merged.get("arrivals"):
            self._arrivals.clear()  # getting ready is no part of the rate
        if not self._arrivals or self._arrivals[-1][0] < t_ns:
            self._arrivals.append((t_ns, int(merged.get("arrivals", 0)), int(merged.get("ended", 0))))
        while len(self._arrivals) > 2 and t_ns - self._arrivals[1][0] >= NOW_S * _SECOND_NS:
            self._arrivals.popleft()
        (begin_ns, begin, ended_then), (end_ns, end, ended) = self._arrivals[0], self._arrivals[-1]
        if end_ns == begin_ns:
            return {}
        span_s = (end_ns - begin_ns) / _SECOND_NS
        return {"offered_per_s": (end - begin) / span_s, "answered_per_s": (ended - ended_then) / span_s}


def _span(stretch: _Stretch) -> Span:
    spreads = {
        name: {percent: histogram.quantile(percent / 100) for percent in PERCENTS}
        for name, histogram in stretch.spreads.items()
    }
    return Span(
        ended=stretch.ended,
        failed=stretch.failed,
        errors=dict(stretch.errors.most_common()),
        percentiles={
            name: {percent: value for percent, value in values.items() if value is not None}
            for name, values in spreads.items()
            if None not in values.values()
        },
        good_share={name: (total - bad) / total for name, (bad, total) in stretch.promises.items() if total},
    )


def _with_reported(whole: Span, merged: JsonObject | None) -> Span:
    """Fill in what load processes on other machines report, whose rows come at the end only."""
    if whole.ended or not merged or not merged.get("ended"):
        return whole
    reported = {name: {99: merged.get(f"{name}_p99")} for name in SPREADS}
    return dataclasses.replace(
        whole,
        ended=int(merged["ended"]),
        failed=int(merged.get("failed", 0)),
        percentiles={
            name: {99: float(values[99])}
            for name, values in reported.items()
            if isinstance(values[99], (int, float))
        },
    )


def read_latest(run: Path) -> dict[str, JsonObject]:
    """Return the last whole row of each load process's figures, by its number."""
    found = {}
    for path in sorted((run / SERIES_FOLDER).glob("client-*.ndjson")):
        row = last_row(path)
        if row is not None:
            found[path.stem.removeprefix("client-")] = row
    return found


def read_merged(run: Path) -> JsonObject | None:
    """Return the latest figures of all load processes together: the master's, or those of the only one."""
    merged = last_row(run / SERIES_FOLDER / "load.ndjson")
    if merged is None:
        return read_latest(run).get("0")
    return merged | {"ended": merged.get("rows", 0)}


def last_row(path: Path) -> JsonObject | None:
    """Return the last whole row of a file that is being written; None: it has none yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
        row = json.loads(lines[-2]) if len(lines) > 1 else None
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None

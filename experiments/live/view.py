"""What a person, and Prometheus, see of a game day while it runs: phase, faults, guards, traffic.

Read from the record and from the guards' last looks, at most once a second and only when somebody asks. It
says how things stand so far; what they mean is judged at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.evidence import LOAD_FOLDER
from experiments.experiment import Experiment
from experiments.guards.guard import Look
from experiments.impact.recovery import LAB_SERIES
from experiments.injecting.ledger import Entry, read_ledger
from experiments.kube.watching.samples import KUBE_SERIES, NODE
from probes.json_types import JsonObject
from probes.tail import Tail
from reports.live_metrics import Figure, traffic_figures
from reports.live_traffic import LOOK_EVERY_S, LiveTraffic
from reports.record import SERIES_FOLDER
from reports.traffic_table import traffic_rows

HEADERS = ("game day", "now, or last 10 s", "since the start")
GUARDED_PHASES = ("before", "during")


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFigures:
    """How a game day stands."""

    phase: str = ""  # empty: none has begun
    phase_s: float = 0.0  # since it began
    left_s: float | None = None  # about; None: not known yet
    faults: Sequence[Entry] = ()
    serving: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # by service: how many, of how many
    guards: Mapping[str, Look] = field(default_factory=dict)
    steps: int | None = None  # of a training job; None: there is none


class DayView:
    """Follows one game day; may be asked from any thread."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        guards: Mapping[str, Look],
        *,
        steps: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The promises of the time of the fault, all along: they are what the day is about.
        self.traffic = LiveTraffic(folder / LOAD_FOLDER, experiment.slos["during"])
        self._experiment, self._folder, self._guards = experiment, folder, guards
        self._steps, self._clock = steps, clock
        self._series = [Tail(folder / SERIES_FOLDER / f"{name}.ndjson") for name in (LAB_SERIES, KUBE_SERIES)]
        self._said: dict[str, JsonObject] = {}  # by each replica or workload, last
        self._phase, self._phase_at = "", clock()
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._figures = DayFigures()

    def begin(self, phase: str) -> None:
        """Note that a phase begins."""
        self._phase, self._phase_at = phase, self._clock()

    def look(self) -> DayFigures:
        """Return how things stand; looked at anew once a second at most."""
        with self._lock:
            if self._clock() - self._looked_at >= LOOK_EVERY_S:
                self._figures = self._look()
                self._looked_at = self._clock()
            return self._figures

    def _look(self) -> DayFigures:
        self._said |= {str(row["subject"]): row for tail in self._series for row in tail.read()}
        phase_s = self._clock() - self._phase_at
        return DayFigures(
            phase=self._phase,
            phase_s=phase_s,
            left_s=left_s(self._experiment, self._phase, phase_s),
            faults=tuple(read_ledger(self._folder)),
            serving=_serving(self._said.values()),
            guards=dict(self._guards) if self._phase in GUARDED_PHASES else {},
            steps=self._steps(),
        )

    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of the table, in the order of ``HEADERS``."""
        seen = self.look()
        if not seen.phase:
            return []
        left = "" if seen.left_s is None else f"about {seen.left_s:.0f} s left"
        rows = [("phase", f"{seen.phase}, {seen.phase_s:.0f} s", left), _fault_row(seen.faults)]
        rows += [("serving", f"{ready} of {wanted}", name) for name, (ready, wanted) in seen.serving.items()]
        rows += [_guard_row(name, look) for name, look in seen.guards.items()]
        if seen.steps is not None:
            rows.append(("training", "", f"{seen.steps:,} steps"))
        traffic = self.traffic.figures()
        return [*rows, *traffic_rows(traffic, self.traffic.slos)] if traffic.has_begun else rows

    def figures(self) -> Iterator[Figure]:
        """Yield the same for Prometheus."""
        seen = self.look()
        if seen.phase:
            yield Figure("overproof_gameday_phase", 1, {"phase": seen.phase})
        if seen.left_s is not None:
            yield Figure("overproof_gameday_left_seconds", seen.left_s)
        pending: dict[tuple[str, str], bool] = {}
        for entry in seen.faults:
            key = (entry.fault, entry.subject)
            pending[key] = pending.get(key, False) or entry.is_pending
        for (fault, subject), is_pending in pending.items():
            yield Figure("overproof_gameday_fault", is_pending, {"fault": fault, "subject": subject})
        for name, (ready, wanted) in seen.serving.items():
            yield Figure("overproof_gameday_replicas_ready", ready, {"service": name})
            yield Figure("overproof_gameday_replicas_wanted", wanted, {"service": name})
        for name, look in seen.guards.items():
            if look.used is not None:
                yield Figure("overproof_gameday_guard_used_ratio", look.used, {"guard": name})
        if seen.steps is not None:
            yield Figure("overproof_gameday_training_steps_total", seen.steps)
        yield from traffic_figures(self.traffic)


def left_s(experiment: Experiment, phase: str, phase_s: float) -> float | None:
    """Return about how long a day still takes if nothing comes in between; None: it has not begun."""
    lengths = {
        "before": experiment.steady_s,
        "during": experiment.pauses_s + experiment.recovery_s,
        "after": experiment.after_s,
    }
    if phase not in lengths:
        return None
    later = [*lengths][[*lengths].index(phase) + 1 :]
    return max(lengths[phase] - phase_s, 0.0) + sum(lengths[name] for name in later)


def _serving(rows: Iterable[JsonObject]) -> dict[str, tuple[int, int]]:
    """Return how many serve and how many should: of a lab's replicas together, of a cluster by workload."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        name = str(row["subject"])
        if name.startswith(NODE):
            continue
        service = "lab" if "wanted" not in row else name.partition(":")[2]
        ready, wanted = found.get(service, (0, 0))
        found[service] = (
            ready + int(row.get("ready", bool(row["is_serving"]))),
            wanted + int(row.get("wanted", 1)),
        )
    return found


def _fault_row(faults: Sequence[Entry]) -> tuple[str, ...]:
    """Return the fault that is there now, else the last that was; others are counted."""
    pending = [entry for entry in faults if entry.is_pending]
    if not faults:
        return ("fault", "none yet", "")
    shown = (pending or faults)[-1]
    others = f", {len(pending) - 1} more" if len(pending) > 1 else ""
    return ("fault", f"{shown.fault} {shown.subject}", f"{shown.state.replace('_', ' ')}{others}")


def _guard_row(name: str, look: Look) -> tuple[str, ...]:
    used = look.state if look.used is None else f"{look.used:.0%} of what it allows"
    return (f"guard {name}", used, "")

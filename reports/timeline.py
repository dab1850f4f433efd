"""The one linked timeline of a run: its record in, panels, bands and markers out. Draws nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from probes.event import Event
from probes.json_types import JsonObject
from reports.panel import Band, Marker, Panel
from reports.run import Run
from reports.telemetry import telemetry_panels
from reports.traffic_sheet import Traffic, read_traffic

# The moments of a game day, in the order in which they are expected.
MOMENTS = {
    "t_inject": "fault injected",
    "t_harm": "first harm",
    "t_detect": "noticed",
    "t_mitigate": "routed around",
    "t_recover": "traffic good again",
    "t_redundant": "all replicas serve",
}
_MOMENTS_OF_TRAINING = {"t_recover": "new steps again", "t_redundant": "every rank trains"}
_FAULT_START = ("fault.injected", "fault.verified")
_FAULT_END = ("fault.undone", "fault.undo_verified", "undo.verified", "undo.done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Everything on the run's clock, in seconds since its start."""

    t0_ns: int
    end_s: float
    panels: tuple[Panel, ...]
    bands: tuple[Band, ...]
    markers: tuple[Marker, ...]
    problems: tuple[str, ...]  # parts of the record that could not be read


def build_timeline(run: Run, traffic: Traffic | None = None, *, is_drawn: bool = True) -> Timeline:
    """Put what a run recorded on one clock; what cannot be read is named, never left out in silence.

    Without ``is_drawn`` it has its bands and moments, and no panel.
    """
    t0_ns = run.header.started_ns
    traffic = read_traffic(run) if traffic is None else traffic
    sampled, unread = telemetry_panels(run, t0_ns) if is_drawn else ([], [])
    panels = [*traffic.panels, *sampled]
    problems = [*([traffic.problem] if traffic.problem else []), *unread]
    bands = (
        *_fault_bands(run, t0_ns),
        *_outage_bands(run, t0_ns),
        *_undo_bands(run, t0_ns),
        *_stage_bands(run, t0_ns),
    )
    markers = tuple(_markers(run, t0_ns))
    return Timeline(
        t0_ns=t0_ns,
        end_s=_end_s(run, panels, t0_ns),
        panels=tuple(_with_values(panels)),
        bands=bands,
        markers=markers,
        problems=tuple(problems),
    )


def _with_values(panels: list[Panel]) -> Iterator[Panel]:
    for panel in panels:
        filled = tuple(series for series in panel.series if series.points)
        if filled:
            yield replace(panel, series=filled)


def _end_s(run: Run, panels: list[Panel], t0_ns: int) -> float:
    ends = [(run.events[-1].t_ns - t0_ns) / 1e9] if run.events else []
    ends += [series.points[-1][0] for panel in panels for series in panel.series if series.points]
    return max([*ends, 1.0])


def _fault_bands(run: Run, t0_ns: int) -> Iterator[Band]:
    """Yield each fault from its injection to its undo; the first of several signs of each counts."""
    open_since: dict[str, Event] = {}
    for event in run.events_of(*_FAULT_START, *_FAULT_END):
        name = _name_of(event.data, "fault")
        if event.kind in _FAULT_START:
            open_since.setdefault(name, event)
        elif name in open_since:
            yield _band("fault", name, open_since.pop(name), event, t0_ns)
    for name, event in open_since.items():
        yield _band("fault", name, event, None, t0_ns)


def _outage_bands(run: Run, t0_ns: int) -> Iterator[Band]:
    """Yield each endpoint that a load had given up, for as long as a load process held it for lost."""
    open_since: dict[tuple[object, object], Event] = {}
    for event in run.events_of("endpoint.lost", "endpoint.back"):
        who = (event.data.get("endpoint"), event.data.get("worker"))
        if event.kind == "endpoint.lost":
            open_since[who] = event
        elif (start := open_since.pop(who, None)) is not None:
            yield _band("fault", f"{who[0]} lost", start, event, t0_ns)
    for who, start in open_since.items():
        yield _band("fault", f"{who[0]} lost", start, None, t0_ns)


def _undo_bands(run: Run, t0_ns: int) -> Iterator[Band]:
    """Yield each undoing, from its start to what came of it."""
    open_since: dict[object, Event] = {}
    for event in run.events_of("undo.started", "undo.verified", "undo.failed"):
        if event.kind == "undo.started":
            open_since[event.data.get("id")] = event
        elif (start := open_since.pop(event.data.get("id"), None)) is not None:
            word = "undo failed" if event.kind == "undo.failed" else "undo"
            yield _band(
                "undo",
                f"{word}: {event.data.get('by') or _name_of(event.data, 'fault')}",
                start,
                event,
                t0_ns,
            )
    for start in open_since.values():
        yield _band("undo", "undo without an end", start, None, t0_ns)


def _stage_bands(run: Run, t0_ns: int) -> Iterator[Band]:
    open_since: dict[str, Event] = {}
    for event in run.events:
        head, _, verb = event.kind.rpartition(".")
        if head not in ("stage", "phase"):
            continue
        name = _name_of(event.data, head)
        if verb == "started":
            open_since.setdefault(name, event)
        elif verb in ("finished", "ended", "done", "aborted") and name in open_since:
            yield _band("stage", name, open_since.pop(name), event, t0_ns)
    for name, event in open_since.items():
        yield _band("stage", name, event, None, t0_ns)


def _name_of(data: JsonObject, fallback: str) -> str:
    return next((str(data[key]) for key in ("name", "fault", "stage", "phase") if data.get(key)), fallback)


def _band(kind: str, label: str, start: Event, end: Event | None, t0_ns: int) -> Band:
    return Band(
        kind=kind,
        label=label,
        start_s=(start.t_ns - t0_ns) / 1e9,
        end_s=None if end is None else (end.t_ns - t0_ns) / 1e9,
    )


def _markers(run: Run, t0_ns: int) -> Iterator[Marker]:
    """Yield the moments of a game day: as judging derived them, else as they were seen while it ran."""
    known: dict[str, int] = {}
    for finding in run.findings:
        for name in MOMENTS:
            t_ns = finding.evidence.get(f"{name}_ns")
            if isinstance(t_ns, int) and not isinstance(t_ns, bool):
                known.setdefault(name, t_ns)
    for event in run.events_of(_FAULT_START[0], *MOMENTS):
        name = "t_inject" if event.kind == _FAULT_START[0] else event.kind
        known.setdefault(name, event.t_ns)
    for name in sorted(known.keys() & MOMENTS.keys(), key=lambda name: (known[name], [*MOMENTS].index(name))):
        is_unhurt = name == "t_recover" and known[name] <= known.get("t_inject", 0)
        label = "traffic stayed good" if is_unhurt else MOMENTS[name]
        if run.header.spec.get("training"):
            label = _MOMENTS_OF_TRAINING.get(name, label)
        elif name == "t_redundant" and run.header.spec.get("target_kind") == "hosts":
            label = "nothing is broken any more"
        yield Marker(name=name, label=label, t_s=(known[name] - t0_ns) / 1e9)

"""What happened on a game day, step by step, with the time of day and the seconds from the injection."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from probes.event import Event
from probes.json_types import JsonObject
from reports.run import CRASHED, FINISHED, INTERRUPTED, STOPPED, Run
from reports.timeline import Timeline

# How a step is marked, which is a word in text and a colour on the page.
FAULT, HARM, WELL, UNDO, STOP, PLAIN = "fault", "harm", "well", "undo", "stop", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happened."""

    t_ns: int
    clock: str  # time of day, UTC
    after_s: float | None  # from the first injection; None: nothing was injected
    mark: str
    what: str
    detail: str


def _subject(data: JsonObject) -> str:
    return f"{data.get('fault', 'fault')} on {name_of(str(data.get('subject', ''))) or 'its target'}"


def name_of(subject: str) -> str:
    """Return a subject without its kind, where it has one: ``replica-0`` of ``replica:replica-0``."""
    return subject.partition(":")[2] or subject


def _alert(data: JsonObject) -> str:
    labels = dict(data.get("labels") or {})
    name = labels.pop("alertname", "without a name")
    return f"{name} ({', '.join(f'{k}={v}' for k, v in labels.items())})" if labels else str(name)


def _so_far(data: JsonObject) -> str:
    what = "steps" if "steps" in data else "requests"
    return f"{data.get(what)} {what} so far"


def _because(data: JsonObject) -> str:
    return f"{data['reason']}; " if data.get("reason") else ""


def _beginning(data: JsonObject) -> str:
    passed = ", ".join(f"{one.get('step')} ({one.get('why')})" for one in data.get("passed_over") or ())
    said = f"{data.get('world')} of them, after step {data.get('from_step')}"
    return f"{said}; passed over the checkpoint of step {passed}" if passed else said


def _of_probe(data: JsonObject) -> tuple[str, str, str] | None:
    """Return what a probe of ours saw; None: it is none, or has nothing to tell."""
    output = data.get("output")
    if data.get("type") != "probe" or not isinstance(output, dict) or not output.get("observed"):
        return None
    mark = {"pass": WELL, "fail": HARM}.get(str(output.get("outcome")), PLAIN)
    return mark, f"probe: {data.get('name')}", str(output["observed"])


Line = tuple[str, str, str]  # mark, what, detail
# Kind of an event -> what it says; what is not here is in the log of the run.
_LINES: Mapping[str, Callable[[JsonObject], Line]] = {
    "steady.seen": lambda d: (WELL, "steady state seen", _so_far(d)),
    "steady.missing": lambda d: (STOP, "no steady state", f"{_because(d)}nothing was injected"),
    "training.resumed": lambda d: (WELL, "ranks begin", _beginning(d)),
    "training.silent": lambda d: (STOP, "training job silent", str(d.get("reason", ""))),
    "fault.armed": lambda d: (FAULT, "armed", f"{_subject(d)}: its undo is on the disk"),
    "fault.verified": lambda d: (FAULT, "verified", str(d.get("observed", ""))),
    "fault.not_verified": lambda d: (STOP, "not verified", str(d.get("observed", ""))),
    "guard.tripped": lambda d: (STOP, "guard tripped", f"{d.get('guard')}: {d.get('observed')}"),
    "guard.stopped": lambda d: (STOP, "stopped and put back", f"{d.get('took_s')} s after the guard"),
    "stop.requested": lambda d: (STOP, "stop asked for", f"by {d.get('by')}"),
    "chaos.stuck": lambda d: (STOP, "an activity was stuck", str(d.get("activity", ""))),
    "chaos.activity.overran": lambda d: (STOP, "an activity overran", str(d.get("name", ""))),
    "chaos.overran": lambda d: (STOP, "the experiment overran", f"its {d.get('deadline_s')} s"),
    "alert.gone": lambda d: (WELL, "alert ended", _alert(d)),
    "alerts.silent": lambda d: (STOP, "Alertmanager silent", str(d.get("reason", ""))),
    "alerts.heard": lambda _: (PLAIN, "Alertmanager heard again", ""),
    "lab.silent": lambda d: (STOP, "lab silent", str(d.get("reason", ""))),
    "undo.started": lambda d: (UNDO, "undo begins", f"by {d.get('by')}"),
    "undo.verified": lambda d: (
        UNDO,
        "undone" if d.get("has_acted", True) else "nothing left to undo",
        f"{str(d.get('did')).removeprefix('nothing to do: ')} (by {d.get('by')})",
    ),
    "undo.failed": lambda d: (STOP, "undo failed", f"{d.get('did')} (by {d.get('by')})"),
    "reaccept.started": lambda d: (PLAIN, "burn-in begins", ", ".join(map(str, d.get("hosts") or ()))),
    "reaccept.ended": lambda d: (
        (WELL, "burn-in passed", "") if d.get("exit_status") == 0 else (STOP, "burn-in not passed", "")
    ),
    INTERRUPTED: lambda d: (STOP, "game day interrupted", str(d.get("signal", ""))),
    STOPPED: lambda d: (STOP, "game day could not go on", str(d.get("reason", ""))),
    CRASHED: lambda d: (STOP, "overproof crashed", str(d.get("reason", ""))),
    FINISHED: lambda _: (PLAIN, "end of the game day", ""),
}
_MOMENTS = {"t_harm": HARM, "t_detect": HARM, "t_mitigate": WELL, "t_recover": WELL, "t_redundant": WELL}


def tell_story(run: Run, timeline: Timeline) -> tuple[Step, ...]:
    """Return what happened in order of time; the moments as judging derived them."""
    found = [*_events(run), *_injections(run), *_moments(run, timeline)]
    injected_ns = min((t_ns for t_ns, line in found if line[1] == "injected"), default=None)
    return tuple(_step(t_ns, line, injected_ns) for t_ns, line in sorted(found, key=lambda pair: pair[0]))


def seconds_text(step: Step) -> str:
    """Return the seconds from the injection; empty where nothing was injected."""
    return "" if step.after_s is None else f"{step.after_s:+.3f}"


def _step(t_ns: int, line: Line, injected_ns: int | None) -> Step:
    moment = datetime.datetime.fromtimestamp(t_ns / 1e9, tz=datetime.UTC)
    return Step(
        t_ns=t_ns,
        clock=f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}",
        after_s=None if injected_ns is None else (t_ns - injected_ns) / 1e9,
        mark=line[0],
        what=line[1],
        detail=line[2],
    )


def _events(run: Run) -> Iterator[tuple[int, Line]]:
    for event in run.events:
        if event.kind in _LINES:
            yield event.t_ns, _LINES[event.kind](event.data)
        elif event.kind == "chaos.activity.completed":
            if (line := _of_probe(event.data)) is not None:
                yield event.t_ns, line
        elif event.kind == "phase.started" and event.data.get("phase") == "before":
            what = "steps are watched" if run.header.spec.get("training") else "traffic begins"
            yield event.t_ns, (PLAIN, what, "")


def _injections(run: Run) -> Iterator[tuple[int, Line]]:
    for event in run.events_of("fault.injected"):
        yield injected_at(event), (FAULT, "injected", _subject(event.data))


def injected_at(event: Event) -> int:
    """Return when a fault was injected, which is a little before its line was written."""
    t_ns = event.data.get("t_inject_ns")
    return t_ns if isinstance(t_ns, int) else event.t_ns


def _moments(run: Run, timeline: Timeline) -> Iterator[tuple[int, Line]]:
    by = {event.kind: str(event.data.get("by", "")) for event in run.events_of("t_harm", "t_detect")}
    for marker in timeline.markers:
        if marker.name in _MOMENTS:
            who = f"by {by[marker.name]}" if by.get(marker.name) else ""
            yield timeline.t0_ns + round(marker.t_s * 1e9), (_MOMENTS[marker.name], marker.label, who)

"""What a report says, gathered before anything is drawn: bounded, so that the largest run stays readable."""

from __future__ import annotations

import datetime
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from probes.event import Event
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.answer_rows import Answers, read_answers
from reports.device_rows import Devices, read_devices
from reports.endpoint_rows import EndpointRow
from reports.fleet_sheet import FleetSheet, build_fleet_sheet
from reports.gameday_sheet import GamedaySheet, build_gameday_sheet
from reports.latency_plot import latency_plot
from reports.rate_plot import rate_plots
from reports.request_figures import Failure, Latency
from reports.run import Run
from reports.run_coverage import RunCoverage, read_coverage
from reports.subject_rows import SubjectRow, subject_rows
from reports.text import one_line, plain
from reports.timeline import Timeline, build_timeline
from reports.traffic_sheet import child_of, read_traffic
from reports.verdict import Verdict, duration_s, format_duration, is_control, sum_up, title_of

FINDINGS_MAX = 2000
DECIDING_MAX = 12
EVENTS_MAX = 400
SPEC_CHARS_MAX = 40_000
EVIDENCE_CHARS_MAX = 3000
HOSTS_FOLDER = "hosts"
_LEFT_OUT = "left-out"  # rule that names what the plan does not ask for
HOSTS_SHOWN_MAX = 20  # of a fleet's specification


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One seeded fault, and whether the detector that it was meant for saw it."""

    name: str
    subject: str
    is_proven: bool
    reach: str  # "end to end" or "parser only", where the record says so
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A derived time of a game day: how long after the fault."""

    label: str
    t_s: float
    after_s: float | None  # None: it is the fault's own injection


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Everything that a report shows."""

    run: Run
    title: str
    verdict: Verdict
    facts: tuple[tuple[str, str], ...]
    timeline: Timeline
    moments: tuple[Moment, ...]
    findings: tuple[Finding, ...]
    findings_left_out: int
    shown: tuple[tuple[str, tuple[Finding, ...]], ...]  # what passed, by rule
    left_out: tuple[Finding, ...]  # by the plan
    not_applicable: tuple[tuple[str, tuple[Finding, ...]], ...]  # the others, by what was said of them
    controls: tuple[Control, ...]
    child_report: str  # of the load test inside a game day; empty: there is none
    subjects: tuple[SubjectRow, ...]
    devices: Devices | None  # of a burn-in
    answers: Answers | None  # to checked tasks
    coverage: RunCoverage | None
    latency_plot: Markup
    endpoints: tuple[EndpointRow, ...]  # of a load on several
    latencies: tuple[Latency, ...]
    failures: tuple[Failure, ...]
    requests: int
    rate_plots: tuple[Markup, ...]  # of a search over rates
    events: tuple[tuple[float, Event], ...]
    events_left_out: int
    command: str
    files: tuple[tuple[str, int], ...]
    fleet: FleetSheet | None  # None: this is no run of a fleet
    gameday: GamedaySheet | None  # None: this is no game day


def build_sheet(run: Run, *, is_drawn: bool = True) -> Sheet:
    """Gather what a report of this run says; what is only drawn, and takes a while, where that is wanted."""
    traffic = read_traffic(run, is_drawn=is_drawn)
    verdict, timeline = sum_up(run), build_timeline(run, traffic, is_drawn=is_drawn)
    child, fleet = child_of(run), build_fleet_sheet(run)
    if fleet is not None:
        timeline = replace(timeline, problems=(*timeline.problems, *fleet.problems))
    findings = sorted(run.findings, key=_weight)
    events = [event for event in run.events if event.kind != "sample"]
    return Sheet(
        run=run,
        title=title_of(run),
        verdict=verdict,
        facts=tuple(_facts(run)),
        timeline=timeline,
        moments=_moments(timeline),
        findings=tuple(findings[:FINDINGS_MAX]),
        findings_left_out=max(0, len(findings) - FINDINGS_MAX),
        shown=tuple(_by_rule([f for f in verdict.passed if not is_control(f)]).items()),
        left_out=tuple(f for f in verdict.not_applicable if f.rule == _LEFT_OUT),
        not_applicable=tuple(_by_words([f for f in verdict.not_applicable if f.rule != _LEFT_OUT]).items()),
        controls=(*_controls(verdict), *(() if child is None else _controls(sum_up(child)))),
        child_report=f"{child.path.name}/report.html" if child is not None else "",
        subjects=tuple(subject_rows(run.findings)),
        devices=read_devices(run) if is_drawn else None,
        answers=read_answers(run),
        coverage=read_coverage(run),
        latency_plot=latency_plot(traffic.latencies),
        endpoints=traffic.endpoints,
        latencies=traffic.latencies,
        failures=traffic.failures,
        requests=traffic.requests,
        rate_plots=tuple(rate_plots(run)),
        events=tuple(((e.t_ns - timeline.t0_ns) / 1e9, e) for e in events[:EVENTS_MAX]),
        events_left_out=max(0, len(events) - EVENTS_MAX),
        command=command_line(run),
        files=tuple(_files(run.path)),
        fleet=fleet,
        gameday=build_gameday_sheet(run, timeline, is_drawn=is_drawn),
    )


def _by_rule(findings: Sequence[Finding]) -> dict[str, tuple[Finding, ...]]:
    rules: dict[str, tuple[Finding, ...]] = {}
    for finding in findings:
        rules[finding.rule] = (*rules.get(finding.rule, ()), finding)
    return rules


def _by_words(findings: Sequence[Finding]) -> dict[str, tuple[Finding, ...]]:
    """Group findings that say the same: a machine without GPUs says it of many rules."""
    words: dict[str, tuple[Finding, ...]] = {}
    for finding in findings[:FINDINGS_MAX]:
        words[finding.observed] = (*words.get(finding.observed, ()), finding)
    return words


def _weight(finding: Finding) -> int:
    """Order findings by how much they matter to the verdict."""
    if finding.waiver is not None:
        return 3
    order: dict[Outcome | None, int] = {
        Outcome.FAIL: 0,
        Outcome.INCONCLUSIVE: 1,
        Outcome.PASS: 2,
        None: 4,
    }
    return order[finding.outcome]


def _facts(run: Run) -> list[tuple[str, str]]:
    started = datetime.datetime.fromtimestamp(run.header.started_ns / 1e9, tz=datetime.UTC)
    target = target_of(run)
    return [
        ("Host", run.header.host),
        *([target] if target else []),
        ("Started", f"{started:%Y-%m-%d %H:%M:%S} UTC"),
        ("Lasted", format_duration(duration_s(run))),
        ("State", run.state),
        ("Seed", str(run.header.seed)),
    ]


def target_of(run: Run) -> tuple[str, str] | None:
    """Return what was put to the proof and what to call it, where the record says so."""
    several = [e for e in run.events_of("endpoint.answered") if e.data.get("endpoint")]
    if several:
        named = ", ".join(f"{event.data['endpoint']} ({event.data.get('url')})" for event in several)
        return "Endpoints", one_line(named, 200)
    for event in run.events_of("inventory", "endpoint.answered", "lab.ready"):
        if event.kind == "inventory":
            return "Device", _device(event.data)
        return "Endpoint", one_line(str(event.data.get("url") or event.data.get("model") or "unknown"), 100)
    return None


def _device(inventory: JsonObject) -> str:
    """Return kind and names of the devices, each name once with its number."""
    kind = str(inventory.get("device_kind") or "unknown")
    listed = inventory.get("devices") or inventory.get("gpus") or []
    names = Counter(_device_name(item) for item in listed) if isinstance(listed, list) else Counter()
    named = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in names.items() if name)
    return one_line(f"{kind} ({named})" if named and named != kind else kind, 100)


def _device_name(item: object) -> str:
    if isinstance(item, dict):
        return str(item.get("model") or item.get("name") or item.get("uuid") or "")
    return str(item)


def _moments(timeline: Timeline) -> tuple[Moment, ...]:
    injected = next((marker.t_s for marker in timeline.markers if marker.name == "t_inject"), None)
    return tuple(
        Moment(
            label=marker.label,
            t_s=marker.t_s,
            after_s=None if injected is None or marker.name == "t_inject" else marker.t_s - injected,
        )
        for marker in timeline.markers
    )


def _controls(verdict: Verdict) -> Iterator[Control]:
    """Yield each seeded fault: those that a finding lists in its evidence, else the finding itself."""
    for finding in verdict.controls:
        listed = finding.evidence.get("controls")
        rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        if rows:
            yield from (_control(row, finding) for row in rows)
        else:
            yield Control(
                name=finding.subject.removeprefix("detector:"),
                subject="",
                is_proven=finding.counts and finding.outcome is Outcome.PASS,
                reach=str(finding.evidence.get("fidelity", "")),
                seen=finding.observed,
            )


def _control(row: JsonObject, finding: Finding) -> Control:
    found = row.get("is_proven", row.get("is_found"))
    name = next((str(row[key]) for key in ("name", "detector") if row.get(key)), finding.rule)
    seen = f"wanted {row['wanted']}, found {row['found']}" if {"wanted", "found"} <= row.keys() else ""
    return Control(
        name=name,
        subject=str(row.get("device") or finding.subject),
        is_proven=found is True,
        reach=str(row.get("fidelity") or finding.evidence.get("fidelity") or ""),
        seen=seen,
    )


def command_line(run: Run) -> str:
    """Return the command that makes such a run again, its seed spelled out."""
    program, *arguments = run.header.command or ["overproof"]
    name = "overproof" if Path(program).stem in ("overproof", "__main__", "-c", "-m") else program
    if not any(argument.partition("=")[0] == "--seed" for argument in arguments):
        arguments = [*arguments, "--seed", str(run.header.seed)]
    return shlex.join([name, *(plain(argument) for argument in arguments)])


def _files(folder: Path) -> list[tuple[str, int]]:
    # A fleet holds the runs of its hosts, thousands of them; each lists its own files.
    own = (path for path in folder.rglob("*") if path.relative_to(folder).parts[0] != HOSTS_FOLDER)
    paths = sorted(path for path in own if path.is_file() and not path.name.startswith("."))
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in paths[:200]]


def spec_text(spec: JsonObject) -> str:
    """Return the spec as a reader would write it, cut where it is beyond reading."""
    import yaml

    fleet = spec.get("fleet")
    if isinstance(fleet, dict) and len(fleet.get("hosts", ())) > HOSTS_SHOWN_MAX:
        spec = spec | {"fleet": f"{len(fleet['hosts']):,} hosts; run.json has them"}
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text if len(text) <= SPEC_CHARS_MAX else text[:SPEC_CHARS_MAX] + "\n… cut; run.json has the whole"

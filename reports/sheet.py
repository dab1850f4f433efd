"""What a report says, gathered before anything is drawn: bounded, so that the largest run stays readable."""

from __future__ import annotations

import datetime
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.event import Event
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import METRICS, percentile
from reports.run import Run
from reports.text import one_line, plain
from reports.timeline import Timeline, build_timeline, read_traffic
from reports.verdict import KIND_TITLES, Verdict, duration_s, format_duration, sum_up

FINDINGS_MAX = 2000
DECIDING_MAX = 12
EVENTS_MAX = 400
SPEC_CHARS_MAX = 40_000
EVIDENCE_CHARS_MAX = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The distribution of one metric over a run."""

    metric: str
    meaning: str
    unit: str
    count: int
    values: dict[str, float]  # "p50" -> value


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One kind of failed request, with an example of what the client saw."""

    error: str
    count: int
    status: int | None
    example: str


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
    latencies: tuple[Latency, ...]
    failures: tuple[Failure, ...]
    requests: int
    events: tuple[tuple[float, Event], ...]
    events_left_out: int
    command: str
    files: tuple[tuple[str, int], ...]


def build_sheet(run: Run) -> Sheet:
    """Gather what a report of this run says."""
    verdict, timeline = sum_up(run), build_timeline(run)
    traffic = [] if timeline.problems else read_traffic(run)
    findings = sorted(run.findings, key=_weight)
    events = [event for event in run.events if event.kind != "sample"]
    return Sheet(
        run=run,
        title=KIND_TITLES.get(run.header.kind, run.header.kind),
        verdict=verdict,
        facts=tuple(_facts(run)),
        timeline=timeline,
        moments=_moments(timeline),
        findings=tuple(findings[:FINDINGS_MAX]),
        findings_left_out=max(0, len(findings) - FINDINGS_MAX),
        latencies=tuple(_latencies(traffic)),
        failures=tuple(_failures(traffic)),
        requests=len(traffic),
        events=tuple(((e.t_ns - timeline.t0_ns) / 1e9, e) for e in events[:EVENTS_MAX]),
        events_left_out=max(0, len(events) - EVENTS_MAX),
        command=command_line(run),
        files=tuple(_files(run.path)),
    )


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
    facts = [("Host", run.header.host)]
    device = device_of(run)
    if device:
        facts.append(("Device", device))
    return [
        *facts,
        ("Started", f"{started:%Y-%m-%d %H:%M:%S} UTC"),
        ("Lasted", format_duration(duration_s(run))),
        ("State", run.state),
        ("Seed", str(run.header.seed)),
    ]


def device_of(run: Run) -> str:
    """Return what was stressed, where an event or the spec says so."""
    for event in run.events:
        for key in ("device", "devices", "device_name", "gpu"):
            value = event.data.get(key)
            if isinstance(value, str) and value:
                return one_line(value, 80)
            if isinstance(value, list) and value:
                return one_line(", ".join(_device_name(item) for item in value), 120)
    value = run.header.spec.get("endpoint")
    return one_line(value, 80) if isinstance(value, str) else ""


def _device_name(item: object) -> str:
    if isinstance(item, dict):
        return str(item.get("name") or item.get("id") or item.get("device") or "")
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


def _latencies(requests: Sequence[Request]) -> list[Latency]:
    """Return each metric's distribution over the requests that were answered whole."""
    found = []
    for metric in METRICS.values():
        values = sorted(v for request in requests if request.is_good for v in metric.read(request))
        if values:
            shares = {f"p{share * 100:g}": percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99)}
            found.append(
                Latency(
                    metric=metric.name,
                    meaning=metric.meaning,
                    unit=metric.unit,
                    count=len(values),
                    values=shares | {"max": values[-1]},
                )
            )
    return found


def _failures(requests: Sequence[Request]) -> list[Failure]:
    failed = [request for request in requests if request.error is not None]
    counts = Counter(request.error or "" for request in failed)
    examples = {request.error: request for request in reversed(failed)}
    return [
        Failure(
            error=error,
            count=count,
            status=examples[error].status,
            example=one_line(examples[error].error_detail, 200),
        )
        for error, count in counts.most_common()
    ]


def command_line(run: Run) -> str:
    """Return the command that makes such a run again, its seed spelled out."""
    program, *arguments = run.header.command or ["overproof"]
    name = "overproof" if Path(program).stem in ("overproof", "__main__", "-c", "-m") else program
    if not any(argument.partition("=")[0] == "--seed" for argument in arguments):
        arguments = [*arguments, "--seed", str(run.header.seed)]
    return shlex.join([name, *(plain(argument) for argument in arguments)])


def _files(folder: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [(str(path.relative_to(folder)), path.stat().st_size) for path in paths[:200]]


def spec_text(spec: JsonObject) -> str:
    """Return the spec as a reader would write it, cut where it is beyond reading."""
    import yaml

    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text if len(text) <= SPEC_CHARS_MAX else text[:SPEC_CHARS_MAX] + "\n… cut; run.json has the whole"

"""All runs of a folder, workload by workload: what each came to, and what changed between them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from probes.errors import ConfigError, RecordError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.compare import Comparison, Direction, compare, differing
from reports.compare_text import SIGNS as DIRECTION_SIGNS
from reports.compare_text import amount
from reports.figure_kind import KINDS
from reports.related import Related, related_runs
from reports.run import Run
from reports.run_figures import RunFigures, figures_to_json, measure, read_figures, runs_in
from reports.text import one_line
from reports.verdict import KIND_TITLES, sum_up
from reports.verdict import SIGNS as SIGNS

SCHEMA_VERSION = 1
BASE_RUNS_MAX = 10  # the latest run is compared with so many before it, those that passed if any did
# Shown in the terminal, where there is no room for all of them.
SHOWN = {"ttft_ms_p50": "ttft p50", "ttft_ms_p90": "ttft p90", "itl_ms_p90": "itl p90"} | {
    "error_share": "errors",
    "tokens_per_s": "tokens/s",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run, and what is different about it from the one before."""

    run: RunFigures
    path: Path
    changed: tuple[str, ...]
    why: str = ""  # what decided it, where it did not pass
    related: tuple[Related, ...] = ()  # to a game day: runs inside it, and of the same nodes

    @property
    def started(self) -> str:
        """The start in words, in UTC."""
        when = datetime.datetime.fromtimestamp(self.run.started_ns / 1e9, tz=datetime.UTC)
        return f"{when:%Y-%m-%d %H:%M}"

    @property
    def outcome(self) -> Outcome:
        """What the run concluded."""
        return Outcome(self.run.outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The runs of one workload, the oldest first."""

    kind: str
    name: str
    entries: tuple[Entry, ...]
    trend: Comparison | None  # the latest beside those before it; None: there is nothing to compare
    trend_problem: str

    @property
    def title(self) -> str:
        """The group in words."""
        return f"{KIND_TITLES.get(self.kind, self.kind)} {self.name}".strip()

    @property
    def trend_text(self) -> str:
        """The trend in one line."""
        if self.trend is None:
            return self.trend_problem
        return trend_text(self.trend)


def build_history(folder: Path, *, last: int) -> list[Group]:
    """Return the groups of a folder of runs; a run whose rows cannot be read is there without figures.

    Raises:
        ConfigError: there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the one that `--out` named")
    groups: dict[tuple[str, str], list[tuple[Run, RunFigures]]] = {}
    runs = runs_in(folder, most=last)
    for run in runs:
        try:
            figures = read_figures(run)
        except (RecordError, ConfigError, ValueError) as error:
            figures = measure(run, [], findings=run.findings, outcome=run.outcome, problems=[str(error)])
        groups.setdefault((figures.kind, figures.workload), []).append((run, figures))
    if not groups:
        raise ConfigError(f"{folder}: holds no run")
    return [_group(kind, name, found, runs) for (kind, name), found in groups.items()]


def _group(kind: str, name: str, found: Sequence[tuple[Run, RunFigures]], beside: Sequence[Run]) -> Group:
    before: RunFigures | None = None
    entries = []
    for run, figures in found:
        entries.append(
            Entry(
                run=figures,
                path=run.path,
                changed=tuple(_changed(before, figures)) if before else (),
                why=_why(run),
                related=related_runs(run, beside),
            )
        )
        before = figures
    trend, problem = _trend([figures for _, figures in found])
    return Group(kind=kind, name=name, entries=tuple(entries), trend=trend, trend_problem=problem)


def _why(run: Run) -> str:
    """Return the first finding that kept a run from passing, and how many more there are."""
    verdict = sum_up(run)
    if verdict.outcome is Outcome.PASS:
        return ""
    found = verdict.failed or verdict.undecided
    if not found:
        return verdict.sentence
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return one_line(f"{found[0].rule} {found[0].subject}: {found[0].observed}", 220) + more


def _changed(before: RunFigures, run: RunFigures) -> Iterator[str]:
    """Name what a reader has to know before he takes a step in a figure for the server's."""
    yield from (f"workload: {key}" for key in differing(before.load, run.load))
    if before.promises != run.promises:
        yield "promises"
    if before.duration_s != run.duration_s:
        yield f"duration {before.duration_s:g} s, now {run.duration_s:g} s"
    for what in ("endpoint", "model", "host"):
        if getattr(before, what) != getattr(run, what):
            yield f"{what} {getattr(run, what)}"
    for name in sorted({*before.versions, *run.versions}):
        if before.versions.get(name) != run.versions.get(name):
            yield f"{name} {run.versions.get(name, 'none')}"


def _trend(runs: Sequence[RunFigures]) -> tuple[Comparison | None, str]:
    *earlier, latest = runs
    if latest.kind != "load":
        return None, ""
    alike = [run for run in earlier if run.load == latest.load and not run.problems]
    passed = [run for run in alike if run.outcome == Outcome.PASS.value]
    base = (passed or alike)[-BASE_RUNS_MAX:]  # beside runs that failed, another bad one would look usual
    if not base:
        return None, "no earlier run of the same load to compare the latest with"
    return compare(base, latest), ""


def trend_text(trend: Comparison) -> str:
    """Return what the latest run shows beside those before it, in one line."""
    if trend.obstacles:
        return f"the latest run cannot be trusted: {trend.obstacles[0]}"
    told = [
        f"{DIRECTION_SIGNS[change.direction]} {change.name} {amount(change, change.change)}"
        for change in trend.changes
        if change.direction in (Direction.WORSE, Direction.BETTER)
    ]
    unclear = sum(change.direction is Direction.UNCLEAR for change in trend.changes)
    words = ", ".join(told) or "nothing is surely better or worse"
    passed = " that passed" if all(run.outcome == Outcome.PASS.value for run in trend.base) else ""
    return f"latest beside {len(trend.base)} before it{passed}: {words}" + (
        f"; {unclear} unclear" if unclear else ""
    )


def render_lines(groups: Sequence[Group]) -> Iterator[str]:
    """Yield the terminal's tables."""
    for group in groups:
        yield one_line(group.title)
        has_figures = any(entry.run.figures for entry in group.entries)
        heads = "".join(f" {head:>9}" for head in SHOWN.values()) if has_figures else ""
        yield f"  {'started, UTC':<16}  {'outcome':<14}{heads}"
        for entry in group.entries:
            cells = "".join(f" {_cell(entry.run, name):>9}" for name in SHOWN) if has_figures else ""
            outcome = f"{SIGNS[entry.outcome]} {entry.outcome}"
            yield f"  {entry.started}  {outcome:<14}{cells}"
            if entry.why:
                yield f"      {one_line(entry.why)}"
            for text in entry.changed:
                yield f"      ◆ {one_line(text, 200)}"
            for one in entry.related:
                nodes = one_line(", ".join(one.nodes), 60)
                title = f"{SIGNS[one.outcome]} {one_line(one.title, 60)}"
                yield f"      ↔ {title} {one.run_id} ({nodes}): {one.when}"
        if group.trend_text:
            yield f"  {one_line(group.trend_text, 400)}"
        yield ""


def _cell(run: RunFigures, name: str) -> str:
    figure = run.figures.get(name)
    if figure is None:
        return "–"
    return f"{figure.value:.2%}" if KINDS[name].is_share else f"{figure.value:.4g}"


def history_document(groups: Sequence[Group]) -> JsonObject:
    """Return what ``--json`` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "groups": [
            {
                "kind": group.kind,
                "workload": group.name,
                "trend": group.trend_text,
                "trend_outcome": None if group.trend is None else group.trend.outcome.value,
                "runs": [figures_to_json(entry.run) | _entry_document(entry) for entry in group.entries],
            }
            for group in groups
        ],
    }


def _entry_document(entry: Entry) -> JsonObject:
    return {
        "path": str(entry.path),
        "changed": list(entry.changed),
        "why": entry.why,
        "related": [
            asdict(one) | {"path": str(one.path), "outcome": one.outcome.value, "nodes": list(one.nodes)}
            for one in entry.related
        ],
    }

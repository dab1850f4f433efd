"""A run beside the baseline that its workload names: what got worse is a failure.

The baseline is copied into the record when the run starts, so that the run can be judged again anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from loadtests.spec.baseline import BaselineSpec
from probes.errors import SuiteError
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from reports.compare import Change, Comparison, Direction, Tolerance, compare
from reports.compare_text import amount, interval, value
from reports.record import RunWriter, write_atomically
from reports.run import Run
from reports.run_figures import RunFigures, figures_to_json, load_figures, measure, parse_baseline

EVENT = "load.baseline"
FILE = "baseline.json"
SCHEMA_VERSION = 1


def keep_baseline(spec: BaselineSpec, writer: RunWriter) -> None:
    """Copy the baseline into the record; one that is not there is noted, and the load goes on."""
    try:
        runs = load_figures(Path(spec.file))
    except SuiteError as error:
        writer.event("load", EVENT, file=spec.file, problem=str(error))
        return
    document: JsonObject = {"schema_version": SCHEMA_VERSION, "runs": [figures_to_json(run) for run in runs]}
    write_atomically(writer.path / FILE, json.dumps(document))
    writer.event("load", EVENT, file=spec.file, runs=[run.id for run in runs])


def judge_baseline(run: Run, requests: Sequence[Request], findings: Sequence[Finding]) -> list[Finding]:
    """Return what became of each figure since the baseline; nothing where the workload names none."""
    said = run.header.spec.get("baseline")
    if not said:
        return []
    spec = BaselineSpec.model_validate(said)
    try:
        base = _read_baseline(run)
        ours = measure(run, requests, findings=findings, outcome=verdict(findings))
        base = [one for one in base if one.id != ours.id]
        if not base:
            return [undecided(spec, "the baseline holds nothing but this run itself")]
        margin = None if spec.margin_pct is None else spec.margin_pct / 100
        return judge_regression(compare(base, ours, tolerance=Tolerance(margin=margin)), spec)
    except SuiteError as error:
        return [undecided(spec, str(error))]


def _read_baseline(run: Run) -> list[RunFigures]:
    problem = next((e.data["problem"] for e in run.events_of(EVENT) if "problem" in e.data), None)
    path = run.path / FILE
    if problem is not None or not path.exists():
        raise SuiteError(str(problem or "the run ended before it had read its baseline"))
    try:
        return parse_baseline(json.loads(path.read_text(encoding="utf-8")), source=str(path))
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path}: cannot be read: {error}") from error


def judge_regression(comparison: Comparison, spec: BaselineSpec) -> list[Finding]:
    """Fail each figure that is worse, pass each that is surely no worse, and leave the rest undecided."""
    if comparison.obstacles:
        return [undecided(spec, "; ".join(comparison.obstacles))]
    wanted = [c for c in comparison.changes if not spec.figures or c.name in spec.figures]
    found = {change.name for change in wanted}
    lacking = [name for name in spec.figures or comparison.missing if name not in found]
    findings = [_judge_change(change, comparison) for change in wanted]
    if lacking or not findings:
        what = ", ".join(lacking) or "any figure"
        findings.append(undecided(spec, f"this run and the baseline do not both have {what}"))
    return findings


def _judge_change(change: Change, comparison: Comparison) -> Finding:
    if change.direction is Direction.WORSE:
        outcome = Outcome.FAIL
    elif change.direction is not Direction.UNCLEAR or change.is_surely_no_worse:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    base = comparison.base
    return Finding(
        rule="regression",
        subject=f"figure:{change.name}",
        outcome=outcome,
        observed=f"{value(change, change.run)} after {value(change, change.base)} in {len(base)} base "
        f"run{'s' if len(base) > 1 else ''}: {amount(change, change.change)} ({interval(change)} at 95 %), "
        f"{change.direction}" + (f"; {change.why}" if change.why else ""),
        expected=f"not worse by more than {amount(change, change.margin).lstrip('+')}",
        evidence={
            "change": change.change,
            "low": change.low,
            "high": change.high,
            "margin": change.margin,
            "direction": change.direction.value,
            "base": [run.id for run in base],
            "notes": list(comparison.notes),
        },
        next_step=_next_step(outcome, len(base)),
    )


def _next_step(outcome: Outcome, base_runs: int) -> str:
    if outcome is Outcome.FAIL:
        return "see with `overproof compare` what else changed; if it is meant, make a new baseline"
    if outcome is Outcome.INCONCLUSIVE and base_runs < 5:
        return "make the baseline of five runs or more, so that it shows how much like runs differ"
    return "" if outcome is Outcome.PASS else "run longer, widen margin_pct, or name the figures that matter"


def undecided(spec: BaselineSpec, reason: str) -> Finding:
    """Return the finding of a comparison that could not be made: a missing baseline is no pass."""
    return Finding(
        rule="regression",
        subject=f"baseline:{Path(spec.file).name}",
        outcome=Outcome.INCONCLUSIVE,
        observed=reason,
        expected="this run can be compared with its baseline",
        next_step="make one from good runs of this workload: overproof baseline RUN... --out FILE",
    )

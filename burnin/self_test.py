"""The self-test: every positive control alone, in seconds, and a table of what was found and what missed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from burnin.evidence import Evidence
from burnin.node.order import Order, StageOrder
from burnin.rules.controls import (
    DETECTORS,
    judge_control,
    prove_aftermath_rules,
    prove_preflight_rules,
    prove_speed_rule,
)
from burnin.rules.figure_controls import prove_figure_rules
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run
from reports.text import one_line

SPEC_KEY = "self_test"
LENGTH_S = 1.0  # of a stage that does nothing but prove its detectors; only its deadline follows from it


def self_test_order(order: Order) -> Order:
    """Return the same stages, reduced to the proof of their detectors; nothing of the load is left."""
    alone = {"only_controls": True, "phases": ["together"]}
    stages = tuple(
        StageOrder(name=s.name, length_s=LENGTH_S if s.length_s else 0.0, options=s.options | alone)
        for s in order.stages
    )
    return replace(order, stages=stages, cycles=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One seeded fault, and whether its detector saw it."""

    detector: str
    fault: str
    result: str  # found, missed or not shown
    reach: str


def judge_controls_alone(evidence: Evidence) -> list[Finding]:
    """Judge a self-test: a detector that missed its fault fails, one that was not shown is undecided."""
    findings = [prove_preflight_rules(), prove_figure_rules(), prove_aftermath_rules(has_gpus=True)]
    # Invented rates: in a self-test nothing runs long enough to have some of its own.
    speed = prove_speed_rule({name: [1.0, 1.01, 0.99, 1.0] for name in ("a", "b")}, "cuda")
    findings += [speed] if speed is not None else []
    for stage, detectors in DETECTORS.items():
        if stage not in evidence.stage_names():
            continue
        if stage == "preflight" and not evidence.order.preflight_options:
            continue
        for detector in detectors:
            told = evidence.told("control", stage=stage, detector=detector)
            if not told and evidence.impossible(stage):
                continue
            findings.append(judge_control(stage, detector, told, devices=evidence.devices))
    return [_strict(finding) for finding in findings]


def _strict(finding: Finding) -> Finding:
    """In a burn-in a blind detector leaves its rule undecided; here the detector itself is under test."""
    return replace(finding, outcome=Outcome.FAIL) if finding.evidence.get("missed") else finding


def table(findings: Sequence[Finding]) -> Iterator[Row]:
    """Yield one row per seeded fault."""
    for finding in findings:
        if finding.rule != "control":
            continue
        rows = finding.evidence.get("controls")
        if rows:
            yield from (_row(row) for row in rows)
            continue
        stage, _, fault = finding.subject.removeprefix("detector:").partition(": ")
        words = {Outcome.PASS: "found", Outcome.FAIL: "missed"}
        yield Row(
            detector=f"rule {finding.evidence['proves']}, {stage}",
            fault=fault,
            result=words.get(finding.outcome or Outcome.INCONCLUSIVE, "not shown"),
            reach=str(finding.evidence.get("fidelity") or ""),
        )


def _row(row: JsonObject) -> Row:
    result = "found" if row["is_found"] else "missed"
    return Row(
        detector=str(row["detector"]), fault=str(row["name"]), result=result, reach=str(row["fidelity"])
    )


def render_self_test(run: Run, *, as_json: bool) -> str:
    """Return the table, what else went wrong, and the run's path as the last line; or all of it as JSON."""
    rows = list(table(run.findings))
    if as_json:
        shown = [
            {"detector": r.detector, "fault": r.fault, "result": r.result, "reach": r.reach} for r in rows
        ]
        said = {"run": str(run.path), "outcome": run.outcome.value, "detectors": shown}
        return json.dumps(said) + "\n"
    head = Row(detector="detector", fault="seeded fault", result="result", reach="reach")
    cells = [(r.detector, r.fault, r.result, r.reach) for r in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    missed = [r for r in rows if r.result != "found"]
    other = [f for f in run.findings if f.rule != "control" and f.outcome not in (None, Outcome.PASS)]
    lines += [f"{f.outcome}  {f.rule} of {f.subject}: {one_line(f.observed)}" for f in other]
    summary = f"{len(rows) - len(missed)} of {len(rows)} seeded faults found"
    return "\n".join([*lines, "", f"{run.outcome}  {summary}", str(run.path)]) + "\n"

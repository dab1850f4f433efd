"""Checked answers in the report: idle beside under load, each replica, examples as text."""

from __future__ import annotations

from pathlib import Path

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.answer_rows import read_answers
from reports.html import render_html
from reports.record import create_run
from reports.run import Run, load_run
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding

EVIDENCE: JsonObject = {
    "idle": {"answers": 40, "right": 38},
    "load": {"answers": 80, "right": 60},
    "wrong_under_load": [{"task": 3, "said": TEXTS[0]}],
}
REPLICAS: JsonObject = {
    "replicas": {"r0": {"answers": 40, "wrong": 0}, TEXTS[1]: {"answers": 40, "wrong": 20}}
}


def load_run_with(out: Path, *findings: Finding) -> Run:
    with create_run(out, kind="load", spec={}, seed=0) as writer:
        writer.write_findings(findings)
    return load_run(writer.path)


def test_idle_load_and_each_replica_have_a_row(tmp_path: Path) -> None:
    run = load_run_with(
        tmp_path,
        finding("answers-right", "endpoint:e", Outcome.FAIL, evidence=EVIDENCE),
        finding("replica-answers", "replica:r1", Outcome.FAIL, evidence=REPLICAS),
    )
    answers = read_answers(run)

    assert answers is not None
    assert [(row.answers, row.right, row.share) for row in answers.rows] == [
        (40, 38, 0.95),
        (80, 60, 0.75),
        (40, 40, 1.0),
        (40, 20, 0.5),
    ]
    page = render_html(run)
    assert "Answers under load" in page
    assert TEXTS[0] not in page
    assert TEXTS[1] not in page


def test_a_load_without_tasks_has_no_such_section(tmp_path: Path) -> None:
    run = load_run_with(tmp_path, finding("slo", "slo:x", Outcome.PASS))

    assert read_answers(run) is None
    assert "Answers under load" not in render_html(run)


def test_evidence_of_another_version_does_no_harm(tmp_path: Path) -> None:
    run = load_run_with(tmp_path, finding("answers-right", "e", None, evidence={"idle": 3}))

    answers = read_answers(run)

    assert answers is not None
    assert (answers.rows, answers.examples) == ((), ())

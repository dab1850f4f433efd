"""The result that machines read: its schema, what a version promises, and documents that keep it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import overproof
from probes.outcome import Outcome
from reports.certificate import record_digests
from reports.publish import publish
from reports.result import ResultSpec, result_document
from reports.run import load_run
from tests.reports.every_kind import KINDS, record
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding, game_day, judged
from tests.reports.results import complaints, complaints_under

# What the first version promised: none of these may go, or come to mean something else.
FIRST = {
    "run": "string",
    "id": "string",
    "kind": "string",
    "state": "string",
    "seed": "integer",
    "findings": "array",
}
FIRST_OF_FINDING = {
    "rule",
    "subject",
    "outcome",
    "observed",
    "expected",
    "unit",
    "evidence",
    "next_step",
    "waiver",
}


def test_the_schema_is_one_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert overproof.run_command(["schema", "result"]) == 0

    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed == ResultSpec.model_json_schema()


def test_version_1_still_has_all_that_it_promised() -> None:
    schema = ResultSpec.model_json_schema()
    properties = schema["properties"]

    assert properties["schema_version"]["const"] == 1
    assert {name: properties[name].get("type") for name in FIRST} == FIRST
    assert {"schema_version", "outcome", *FIRST} <= set(schema["required"])
    assert set(schema["$defs"]["FindingResult"]["required"]) >= FIRST_OF_FINDING
    assert properties["outcome"]["enum"] == ["pass", "inconclusive", "fail"]
    assert properties["state"]["enum"] == ["finished", "running", "interrupted", "stopped", "crashed"]


def test_a_document_keeps_the_schema_with_failed_waived_and_inapplicable_findings(tmp_path: Path) -> None:
    run = game_day(tmp_path)

    assert {f.outcome for f in run.findings} == {*Outcome, None}
    assert complaints(result_document(run)) == []


def test_a_field_more_is_no_error_to_a_reader_and_one_less_or_another_value_is(tmp_path: Path) -> None:
    document = result_document(game_day(tmp_path))
    is_valid = Draft202012Validator(ResultSpec.model_json_schema()).is_valid

    assert is_valid(document | {"later": 1})
    assert not is_valid({key: value for key, value in document.items() if key != "outcome"})
    assert not is_valid(document | {"outcome": "skipped"})
    assert not is_valid(document | {"schema_version": 2})
    assert not is_valid(document | {"findings": [document["findings"][0] | {"observed": None}]})


def test_our_own_documents_have_no_field_that_the_schema_does_not_tell(tmp_path: Path) -> None:
    document = result_document(game_day(tmp_path))

    assert complaints(document | {"later": 1}) == ["later"]
    assert complaints(document | {"findings": [document["findings"][0] | {"more": 1}]}) == ["more"]


def test_the_file_beside_the_record_is_the_document_and_strict_json(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    evidence = {"low": -math.inf, "values": [math.nan, 1.0]}
    findings = [finding("slo", text, Outcome.FAIL, text, evidence=evidence) for text in TEXTS]
    publish(judged(tmp_path, findings))
    [path] = tmp_path.glob("2*/result.json")
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)

    assert document["outcome"] == "fail"
    assert document["run"] == str(load_run(path.parent).path)
    assert [f["subject"] for f in document["findings"]] == TEXTS or len(document["findings"]) == len(TEXTS)
    assert complaints(document) == []


def test_a_run_whose_result_breaks_the_schema_is_found_among_others(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        publish(game_day(tmp_path / name))
    [bad] = tmp_path.glob("bad/2*/result.json")
    bad.write_text(bad.read_text().replace('"outcome":"fail"', '"outcome":"failed"', 1))

    assert complaints_under(tmp_path).keys() == {str(bad)}
    bad.write_text(bad.read_text().replace('"outcome":"failed"', '"outcome":"fail"', 1))
    assert complaints_under(tmp_path) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rendered_from_a_record_is_no_part_of_the_digests_that_certify_it(
    kind: str, tmp_path: Path
) -> None:
    run = record(kind, tmp_path)
    certified = record_digests(run)

    publish(run)

    assert record_digests(run) == certified

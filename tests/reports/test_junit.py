"""JUnit: what CI systems read, within what they take."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.finding import Finding
from probes.outcome import Outcome
from reports.junit import CASES_MAX, render_junit
from reports.record import create_run
from reports.run import FINISHED, Run, load_run
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding, game_day

KINDS = {"failure": "fail", "error": "inconclusive", "skipped": None}


def recorded(out: Path, findings: list[Finding], *kinds: str) -> Run:
    with create_run(out, kind="load", spec={}, seed=0) as writer:
        for kind in kinds or (FINISHED,):
            writer.event("controller", kind)
        writer.write_findings(findings)
    return load_run(writer.path)


def suite_of(run: Run) -> ElementTree.Element:
    [suite] = ElementTree.fromstring(render_junit(run).encode())
    return suite


def test_each_outcome_becomes_what_ci_understands_by_it(tmp_path: Path) -> None:
    suite = suite_of(game_day(tmp_path))

    assert [(case.get("name"), [child.tag for child in case]) for case in suite.iter("testcase")] == [
        ("fault.verified fault:process-kill", []),
        ("slo slo:ttft@during", ["failure"]),
        ("slo slo:ttft@after", []),
        ("control detector:cut-stream", []),
        ("alerting endpoint:http://127.0.0.1:9000", ["skipped"]),
        ("collateral host:bench", ["skipped"]),
    ]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "0",
        "skipped": "2",
    }


def test_an_undecided_finding_is_an_error_and_carries_its_next_step(tmp_path: Path) -> None:
    undecided = finding("slo", "slo:x", Outcome.INCONCLUSIVE, "3 samples", next_step="run longer")
    [case] = suite_of(recorded(tmp_path, [undecided])).iter("testcase")

    assert [(child.tag, child.get("message")) for child in case] == [("error", "3 samples")]
    assert "next: run longer" in (case[0].text or "")


@pytest.mark.parametrize(
    ("findings", "kinds"), [([], (FINISHED,)), ([finding("a", "b", Outcome.PASS)], ("x",))]
)
def test_a_run_that_is_undecided_without_an_undecided_finding_still_has_an_error(
    findings: list[Finding], kinds: tuple[str, ...], tmp_path: Path
) -> None:
    suite = suite_of(recorded(tmp_path, findings, *kinds))

    assert suite.get("errors") == "1"
    assert [case.get("name") for case in suite.iter("testcase") if case.find("error") is not None] == [
        "verdict of the run"
    ]


def test_properties_come_first_and_every_case_has_a_name_and_a_class(tmp_path: Path) -> None:
    suite = suite_of(game_day(tmp_path))

    assert [child.tag for child in suite][:2] == ["properties", "testcase"]
    assert {case.get("classname") for case in suite.iter("testcase")} == {"overproof.gameday"}


def test_names_are_unique_because_gitlab_drops_the_second_of_two(tmp_path: Path) -> None:
    twice = [finding("slo", "slo:x", Outcome.PASS), finding("slo", "slo:x", Outcome.FAIL)]

    assert [c.get("name") for c in suite_of(recorded(tmp_path, twice)).iter("testcase")] == [
        "slo slo:x",
        "slo slo:x #2",
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_leaves_the_file_well_formed_and_the_counts_right(text: str, tmp_path: Path) -> None:
    hostile = [
        finding(text, text, outcome, text, expected=text, next_step=text) for outcome in (Outcome.FAIL, None)
    ]
    suite = suite_of(recorded(tmp_path, hostile))

    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=4))
def test_no_text_at_all_can_break_the_file(texts: list[str], tmp_path: Path) -> None:
    rows = [finding(text, text, Outcome.FAIL, text) for text in texts]
    names = [case.get("name") for case in suite_of(recorded(tmp_path, rows)).iter("testcase")]

    assert len(set(names)) == len(texts)


# What junit-10.xsd of Jenkins' xunit plugin allows: attributes, those that must be there, and children.
_TEXT = ({"type", "message"}, set(), set())
JENKINS: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id"}
        | {"package", "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, {"name", "value"}, set()),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"name"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": _TEXT,
    "error": _TEXT,
    "skipped": _TEXT,
}
SUREFIRE_TIME = r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?"


def complaints_of_jenkins(element: ElementTree.Element) -> list[str]:
    """Return all by which an element and those in it break the schema."""
    allowed, needed, children = JENKINS[element.tag]
    found = [f"{element.tag}: attribute {name}" for name in set(element.keys()) - allowed]
    found += [f"{element.tag}: lacks {name}" for name in needed - set(element.keys())]
    if element.tag == "testsuite" and not re.fullmatch(SUREFIRE_TIME, element.get("time", "")):
        found.append(f"time {element.get('time')!r}")
    for child in element:
        found += [f"{element.tag}: child {child.tag}"] if child.tag not in children else []
        found += complaints_of_jenkins(child)
    return found


def test_the_file_keeps_the_schema_of_jenkins(tmp_path: Path) -> None:
    hostile = [finding(text, text, outcome, text) for text in TEXTS for outcome in (*Outcome, None)]
    runs = [game_day(tmp_path / "a"), recorded(tmp_path / "b", hostile), recorded(tmp_path / "c", [])]

    assert [complaints_of_jenkins(ElementTree.fromstring(render_junit(run).encode())) for run in runs] == [
        [],
        [],
        [],
    ]


def test_the_schema_of_jenkins_would_be_seen_to_break() -> None:
    broken = ElementTree.fromstring(
        '<testsuites skipped="1"><testsuite name="a"><x/></testsuite></testsuites>'
    )
    broken[0].remove(broken[0][0])

    assert complaints_of_jenkins(broken) != []


def test_a_very_large_run_keeps_what_did_not_pass_within_the_limits_of_parsers(tmp_path: Path) -> None:
    passed = [finding("ecc", f"gpu:{n}", Outcome.PASS) for n in range(CASES_MAX)]
    run = recorded(tmp_path, [*passed, finding("ecc", "gpu:bad", Outcome.FAIL)])
    text = render_junit(run)
    [suite] = ElementTree.fromstring(text.encode())

    assert len(text) < 30_000_000
    assert (suite.get("tests"), suite.get("failures")) == (str(CASES_MAX), "1")
    assert suite.find(".//property[@name='findings_left_out']").get("value") == "1"  # type: ignore[union-attr]


def test_a_name_made_unique_is_not_that_of_another_case(tmp_path: Path) -> None:
    subjects = ["slo:x", "slo:x", "slo:x #2", "slo:x", "slo:x #2"]
    names = [
        case.get("name")
        for case in suite_of(recorded(tmp_path, [finding("slo", s, Outcome.PASS) for s in subjects])).iter(
            "testcase"
        )
    ]

    assert names[:2] == ["slo slo:x", "slo slo:x #2"]
    assert len(set(names)) == len(subjects)


def test_long_texts_stay_within_30_megabytes_and_what_failed_is_kept_first(tmp_path: Path) -> None:
    long = "&é" * 5000
    passed = [finding("slo", f"slo:{n} {long}", Outcome.PASS) for n in range(3000)]
    failed = [finding("ecc", f"gpu:{n}", Outcome.FAIL, long, next_step=long) for n in range(700)]
    text = render_junit(recorded(tmp_path, [*passed, *failed]))
    [suite] = ElementTree.fromstring(text.encode())

    kept = int(suite.get("tests", "0"))
    assert 25_000_000 < len(text.encode()) < 30_000_000
    assert (suite.get("failures"), kept < 3700) == ("700", True)
    assert len(list(suite.iter("testcase"))) == kept
    assert suite.find(".//property[@name='findings_left_out']").get("value") == str(3700 - kept)  # type: ignore[union-attr]


def test_no_more_elements_than_gitlab_counts(tmp_path: Path) -> None:
    failed = [finding("ecc", f"gpu:{n}", Outcome.FAIL) for n in range(CASES_MAX + 5)]
    root = ElementTree.fromstring(render_junit(recorded(tmp_path, failed)).encode())

    assert sum(1 + len(element.attrib) + bool(element.text) for element in root.iter()) < 250_000

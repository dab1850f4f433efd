"""Findings: what counts, what a waiver can do, and that nothing is lost on the way to disk and back."""

from __future__ import annotations

import datetime
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.event import to_json_line
from probes.finding import Finding, Waiver, apply_waivers, finding_from_json, finding_to_json, verdict
from probes.outcome import Outcome

TODAY = datetime.date(2026, 11, 21)
texts = st.text(max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
waivers = st.builds(Waiver, rule=texts, subject=texts, owner=texts, reason=texts, expires=st.dates().map(str))
findings = st.builds(
    Finding,
    rule=texts,
    subject=texts,
    outcome=st.none() | st.sampled_from(Outcome),
    observed=texts,
    expected=texts,
    unit=texts,
    evidence=st.dictionaries(texts, json_values, max_size=3),
    next_step=texts,
    waiver=st.none() | waivers,
)


def make(outcome: Outcome | None, *, rule: str = "heat", subject: str = "gpu:1") -> Finding:
    return Finding(rule=rule, subject=subject, outcome=outcome, observed="95 °C", expected="at most 85 °C")


def waiver(*, rule: str = "heat", subject: str = "gpu:*", expires: str = "2026-11-21") -> Waiver:
    return Waiver(rule=rule, subject=subject, owner="ops", reason="fan on order", expires=expires)


@given(findings)
def test_a_finding_comes_back_from_its_line_as_it_was(finding: Finding) -> None:
    line = to_json_line(finding_to_json(finding))

    assert line.count("\n") == 1
    assert finding_from_json(json.loads(line.encode())) == finding


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_json_lacks_is_kept_by_name(value: float) -> None:
    finding = Finding(rule="r", subject="s", outcome=None, observed="", expected="", evidence={"x": [value]})

    back = finding_from_json(json.loads(to_json_line(finding_to_json(finding))))

    assert back.evidence == {"x": [repr(value)]}


def test_half_a_surrogate_pair_is_replaced_so_that_the_line_can_be_written() -> None:
    line = to_json_line({"name": "a\udc80b"})

    assert json.loads(line.encode("utf-8")) == {"name": "a\ufffdb"}


def test_a_finding_of_a_newer_version_is_read_without_what_is_unknown() -> None:
    row = finding_to_json(make(Outcome.FAIL)) | {"colour": "red"}

    assert finding_from_json(row) == make(Outcome.FAIL)


@given(st.lists(findings, max_size=8))
def test_what_is_not_applicable_or_waived_never_moves_the_verdict(found: list[Finding]) -> None:
    counted = [f for f in found if f.outcome is not None and f.waiver is None]

    assert verdict(found) is verdict(counted)


def test_a_run_in_which_everything_is_waived_or_not_applicable_is_inconclusive() -> None:
    waived = apply_waivers([make(Outcome.FAIL), make(None)], [waiver()], today=TODAY)

    assert verdict(waived) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("expires", "counts"), [("2026-11-20", True), ("2026-11-21", False), ("2026-11-22", False)]
)
def test_a_waiver_holds_to_the_end_of_its_last_day(expires: str, counts: bool) -> None:
    [finding] = apply_waivers([make(Outcome.FAIL)], [waiver(expires=expires)], today=TODAY)

    assert finding.counts is counts
    assert (finding.outcome, finding.waiver is None) == (Outcome.FAIL, counts)


def test_a_waiver_covers_only_what_did_not_pass() -> None:
    found = [make(Outcome.PASS), make(None), make(Outcome.INCONCLUSIVE), make(Outcome.FAIL)]

    waived = apply_waivers(found, [waiver()], today=TODAY)

    assert [f.waiver is not None for f in waived] == [False, False, True, True]


def test_a_waiver_covers_only_the_subjects_and_rules_that_it_names() -> None:
    found = [
        make(Outcome.FAIL, subject="gpu:17"),
        make(Outcome.FAIL, subject="host:a"),
        make(Outcome.FAIL, rule="ecc"),
    ]

    waived = apply_waivers(found, [waiver(subject="gpu:1?")], today=TODAY)

    assert [f.waiver is not None for f in waived] == [True, False, False]


@given(st.lists(findings, max_size=6), st.lists(waivers, max_size=3))
def test_a_waiver_never_turns_a_failure_into_a_pass(
    found: list[Finding], given_waivers: list[Waiver]
) -> None:
    after = apply_waivers(found, given_waivers, today=TODAY)

    assert [f.outcome for f in after] == [f.outcome for f in found]
    assert not (verdict(after) is Outcome.PASS and not any(f.outcome is Outcome.PASS for f in found))

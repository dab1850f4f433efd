"""OpenSLO files: what a test can show becomes promises, the rest is refused by line or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import ConfigError
from probes.openslo import load_openslo
from probes.promise import GOODPUT, Slo, Window

INDICATOR = """
---
apiVersion: openslo/v1
kind: SLI
metadata: {name: first}
spec:
  thresholdMetric: {metricSource: {type: Prometheus, spec: {query: a}}}
"""
HEAD = """apiVersion: openslo/v1
kind: SLO
metadata: {name: chat}
spec:
  service: chat
"""


def load(tmp_path: Path, text: str, **metrics: str) -> tuple[Slo, ...]:
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    return load_openslo(path, metrics=metrics, confidence=0.9)


def test_a_threshold_by_occurrences_is_a_bound_for_a_share(tmp_path: Path) -> None:
    text = HEAD + (
        "  indicatorRef: first\n  budgetingMethod: Occurrences\n"
        "  timeWindow: [{duration: 4w, isRolling: true}]\n"
        "  objectives: [{op: lt, value: 0.5, targetPercent: 99}]\n"
    )

    (slo,) = load(tmp_path, text + INDICATOR, first="ttft_ms in s")

    assert (slo.name, slo.metric, slo.bound, slo.objective, slo.confidence) == (
        "chat",
        "ttft_ms",
        500.0,
        0.99,
        0.9,
    )
    assert "timeWindow" in slo.source
    assert "op lt is taken as lte" in slo.source


def test_time_slices_are_windows(tmp_path: Path) -> None:
    text = HEAD + (
        "  indicatorRef: first\n  budgetingMethod: Timeslices\n"
        "  objectives: [{op: lte, value: 500, target: 0.9, timeSliceTarget: 0.95, timeSliceWindow: 30s}]\n"
    )

    (slo,) = load(tmp_path, text + INDICATOR, first="ttft_ms")

    assert (slo.objective, slo.window) == (0.95, Window(length_s=30, objective=0.9))


def test_a_ratio_is_goodput_and_our_own_source_needs_no_mapping(tmp_path: Path) -> None:
    ratio = HEAD + (
        "  indicator:\n    metadata: {name: errors}\n    spec:\n      ratioMetric:\n        counter: true\n"
        "        good: {metricSource: {type: x}}\n        total: {metricSource: {type: x}}\n"
        "  budgetingMethod: Occurrences\n  objectives: [{target: 0.98}, {target: 0.9}]\n"
    )
    ours = HEAD + (
        "  indicator:\n    metadata: {name: whole}\n    spec:\n      thresholdMetric:\n"
        "        metricSource: {type: overproof, spec: {metric: e2e_ms, unit: s}}\n"
        "  budgetingMethod: Occurrences\n  objectives: [{op: lte, value: 2, target: 0.9}]\n"
    )

    assert [(slo.name, slo.metric, slo.objective) for slo in load(tmp_path, ratio)] == [
        ("chat-1", GOODPUT, 0.98),
        ("chat-2", GOODPUT, 0.9),
    ]
    assert [(slo.metric, slo.bound) for slo in load(tmp_path, ours)] == [("e2e_ms", 2000.0)]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (
            "  indicatorRef: first\n  budgetingMethod: RatioTimeslices\n  objectives: [{target: 0.9}]\n",
            "slo.yaml:7",
        ),
        (
            "  indicatorRef: other\n  budgetingMethod: Occurrences\n  objectives: [{target: 0.9}]\n",
            "no SLI named",
        ),
        (
            "  indicatorRef: first\n  budgetingMethod: Occurrences\n"
            "  objectives: [{op: gt, value: 1, target: 0.9}]\n",
            "slo.yaml:8: spec.objectives.0.op",
        ),
        (
            "  indicatorRef: first\n  budgetingMethod: Occurrences\n"
            "  objectives: [{op: lt, value: 1, target: 0.9, compositeWeight: 2}]\n",
            "composite SLOs are not supported",
        ),
        (
            "  indicatorRef: first\n  budgetingMethod: Occurences\n  objectives: [{target: 0.9}]\n",
            "slo.yaml:7: spec.budgetingMethod",
        ),
        ("  indicatorRef: first\n  budgetingMethod: Occurrences\n  objectives: [{taget: 0.9}]\n", "'target'"),
        (
            "  indicatorRef: first\n  budgetingMethod: Occurrences\n  objectives: [{op: lt, target: 0.9}]\n",
            "value is missing",
        ),
    ],
)
def test_what_a_test_cannot_show_is_refused_by_line(tmp_path: Path, body: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, HEAD + body + INDICATOR, first="ttft_ms")

    assert wanted in str(caught.value)


def test_an_indicator_that_nobody_translated_is_refused_with_the_way_to_say_it(tmp_path: Path) -> None:
    body = (
        HEAD
        + "  indicatorRef: first\n  budgetingMethod: Occurrences\n  objectives: [{value: 1, target: 0.9}]\n"
    )

    with pytest.raises(ConfigError, match=r"metrics: \{first: ttft_ms\}"):
        load(tmp_path, body + INDICATOR)


@pytest.mark.parametrize(
    "text", ["", "kind: Deployment\n", INDICATOR.removeprefix("\n---\n"), "a: [\n", "- 1\n"]
)
def test_a_file_without_a_promise_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"slo\.yaml"):
        load(tmp_path, text)

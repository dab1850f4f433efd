"""Who a run is about, the worst first."""

from __future__ import annotations

from probes.outcome import Outcome
from reports.subject_rows import subject_rows
from tests.reports.recorded import finding


def test_subjects_come_with_the_worst_that_was_found_of_them_and_the_worst_first() -> None:
    rows = subject_rows(
        [
            finding("speed", "device:cpu:0", Outcome.PASS),
            finding("slo", "slo:ttft@before", Outcome.PASS),
            finding("slo", "slo:ttft@during", Outcome.INCONCLUSIVE),
            finding("exact", "device:cpu:1", Outcome.FAIL),
            finding("speed", "device:cpu:1", Outcome.PASS),
            finding("host-counters", "host:vm/oom_kills", Outcome.PASS),
            finding("ecc", "device:cpu:2", None),
            finding("control", "detector:x", Outcome.FAIL),
            finding("completeness", "run:x", Outcome.PASS),
        ]
    )

    assert [(row.name, row.outcome, row.findings, row.against) for row in rows] == [
        ("device:cpu:1", Outcome.FAIL, 2, 1),
        ("slo:ttft", Outcome.INCONCLUSIVE, 2, 1),
        ("device:cpu:0", Outcome.PASS, 1, 0),
        ("host:vm", Outcome.PASS, 1, 0),
    ]


def test_a_run_that_was_cut_short_is_a_subject_itself() -> None:
    [row] = subject_rows([finding("completeness", "run:x", Outcome.INCONCLUSIVE)])

    assert row.name == "run:x"

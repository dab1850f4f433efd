"""All-reduce: wrong elements, broken-off collectives, and sizes that never ran."""

from __future__ import annotations

from typing import Any

from burnin.rules.collective import judge_allreduce
from probes.finding import Finding
from probes.outcome import Outcome

RESULT = {
    "size_bytes": 1024,
    "elements": 256,
    "busbw_gbps": 0.5,
    "ranks": 2,
    "backend": "gloo",
    "miscompared_elements": 0,
}


def _judge(**changes: Any) -> Finding:
    given: dict[str, Any] = {
        "results": [RESULT],
        "miscompares": [],
        "is_done": True,
        "impossible": None,
        "failures": [],
    }
    return judge_allreduce("cpu:0", **(given | changes))


def test_right_elements_pass_with_the_bandwidth_and_its_message_size() -> None:
    found = _judge()

    assert found.outcome is Outcome.PASS
    assert "0.5 GB/s bus bandwidth at 1,024 B" in found.observed


def test_a_wrong_element_fails_even_where_the_stage_broke_off_later() -> None:
    found = _judge(results=[], miscompares=[{"elements": 1, "size_bytes": 1024}], is_done=False)

    assert found.outcome is Outcome.FAIL


def test_a_stage_that_could_not_run_broke_off_or_did_not_end_is_undecided() -> None:
    for changes in (
        {"impossible": "1 of 2 devices left"},
        {"failures": ["connection closed"]},
        {"is_done": False},
        {"results": []},
    ):
        assert _judge(**changes).outcome is Outcome.INCONCLUSIVE

"""The self-test: every detector with its seeded fault, and no exit code 0 when one of them is blind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnin.evidence import Evidence
from burnin.judging import judge_run
from burnin.rules.controls import DETECTORS, prove_rules
from burnin.self_test import judge_controls_alone, render_self_test, self_test_order, table
from probes.finding import Finding, verdict
from probes.outcome import Outcome
from reports.record import write_findings
from reports.run import Run, load_run
from tests.burnin.node_record import Node
from tests.processes import start_job


def test_the_real_detectors_find_what_is_seeded_into_this_machines_own_buffers(tmp_path: Path) -> None:
    job = start_job(["burnin", "run", "--self-test", "--device", "cpu", "--json"], tmp_path)

    assert job.wait(timeout_s=90) == 0, job.text()
    said = json.loads(job.text().splitlines()[-1])
    reached = {row["fault"] for row in said["detectors"] if row["reach"] == "end to end"}
    assert {row["result"] for row in said["detectors"]} == {"found"}
    assert {name for names in DETECTORS.values() for name in names} - {"stalled worker"} == reached
    assert load_run(Path(said["run"]) if Path(said["run"]).is_absolute() else tmp_path / said["run"]).events


def _self_tested(tmp_path: Path, **changes: object) -> Run:
    return Node(spec={"self_test": True}, **changes).write(tmp_path)  # type: ignore[arg-type]


def _blind(kind: str, data: dict[str, object]) -> bool:
    return kind == "control" and data.get("detector") == "NaN in a product"


@pytest.mark.needs("gcc")
def test_a_detector_that_misses_its_fault_fails_the_self_test(tmp_path: Path) -> None:
    missed = {"stage": "matmul", "device": "GPU-x", "detector": "NaN in a product", "is_found": False}
    run = _self_tested(tmp_path, events=[(4, "control", missed | {"fidelity": "end to end"})])
    write_findings(run.path, judge_run(run))
    run = load_run(run.path)

    assert run.outcome is Outcome.FAIL
    assert [row.fault for row in table(run.findings) if row.result == "missed"] == ["NaN in a product"]
    assert "missed" in render_self_test(run, as_json=False)


@pytest.mark.needs("gcc")
def test_a_detector_that_was_not_shown_leaves_the_self_test_undecided(tmp_path: Path) -> None:
    run = _self_tested(tmp_path, without=_blind)

    findings = judge_controls_alone(Evidence(run))

    assert verdict(findings) is Outcome.INCONCLUSIVE
    assert [row.fault for row in table(findings) if row.result == "not shown"] == ["NaN in a product"]


@pytest.mark.needs("gcc")
def test_a_worker_that_died_is_told_beside_the_table(tmp_path: Path) -> None:
    died = {"device": "GPU-00000000-0000-0000-0000-000000000001", "exit_code": -11}
    run = _self_tested(tmp_path, events=[(5, "worker.died", died)])
    write_findings(run.path, judge_run(run))

    assert "worker of gpu:GPU-00000000-0000-0000-0000-000000000001" in render_self_test(
        load_run(run.path), as_json=False
    )


def test_a_rule_that_lets_its_fault_pass_is_named() -> None:
    blind = Finding(rule="heat", subject="gpu:1", outcome=Outcome.PASS, observed="", expected="")

    found = prove_rules("figures", {"fire": lambda: blind})

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.evidence["controls"][0] == {
        "name": "fire",
        "detector": "rule heat",
        "is_found": False,
        "fidelity": "parser only",
    }


@pytest.mark.needs("gcc")
def test_the_order_of_a_self_test_loads_nothing(tmp_path: Path) -> None:
    order = self_test_order(Evidence(_self_tested(tmp_path)).order)

    assert {s.length_s for s in order.stages} <= {0.0, 1.0}
    assert all(s.options["only_controls"] for s in order.stages)

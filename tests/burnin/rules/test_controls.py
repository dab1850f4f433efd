"""A detector counts only where a seeded fault has proven it in this run."""

from __future__ import annotations

from burnin.node.order import SeededFault
from burnin.rules.controls import (
    judge_control,
    judge_planted,
    prove_aftermath_rules,
    prove_preflight_rules,
    prove_speed_rule,
    withhold,
)
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

FLIP = "bit flip in a product"


def _told(device: str, *, is_found: bool = True) -> JsonObject:
    return {"device": device, "is_found": is_found, "fidelity": "end to end"}


def _finding(rule: str, outcome: Outcome = Outcome.PASS) -> Finding:
    return Finding(rule=rule, subject="device:cpu:0", outcome=outcome, observed="x", expected="y")


def test_a_control_names_where_it_was_found_and_how_far_down_the_line() -> None:
    found = judge_control("matmul", FLIP, [_told("cpu:0"), _told("cpu:1")], devices=["cpu:0", "cpu:1"])

    assert found.outcome is Outcome.PASS
    assert found.observed == "found on cpu:0, cpu:1, end to end"
    assert found.subject == "detector:matmul: bit flip in a product"


def test_a_control_that_misses_or_is_absent_on_one_device_is_undecided() -> None:
    missed = judge_control("matmul", FLIP, [_told("cpu:0", is_found=False)], devices=["cpu:0"])
    absent = judge_control("matmul", FLIP, [_told("cpu:0")], devices=["cpu:0", "cpu:1"])

    assert missed.outcome is absent.outcome is Outcome.INCONCLUSIVE
    assert judge_control("matmul", FLIP, [], devices=[]).outcome is Outcome.INCONCLUSIVE


def test_what_an_unproven_detector_let_pass_is_taken_back_and_a_failure_stays() -> None:
    missed = judge_control("matmul", FLIP, [_told("cpu:0", is_found=False)], devices=["cpu:0"])

    found = withhold([_finding("exact"), _finding("digest"), _finding("exact", Outcome.FAIL)], [missed])

    assert [f.outcome for f in found] == [Outcome.INCONCLUSIVE, Outcome.PASS, Outcome.FAIL]
    assert "was not proven in this run" in found[0].observed


def test_the_speed_rule_is_proven_with_the_noise_of_the_run_itself() -> None:
    quiet = prove_speed_rule({"cpu:0": [0.08] * 9, "cpu:1": [0.05] * 9}, "cpu")
    hopeless = prove_speed_rule({"cpu:0": [0.08] * 9, "cpu:1": [0.01] * 9}, "cpu")

    assert quiet is not None
    assert quiet.outcome is Outcome.PASS
    assert hopeless is not None
    assert hopeless.outcome is Outcome.INCONCLUSIVE, "beside such a sibling a slow cpu:0 would not be seen"
    assert prove_speed_rule({"cpu:0": [0.08] * 9}, "cpu") is None


def test_the_rules_of_preflight_and_aftermath_find_every_invented_fault() -> None:
    for found in (
        prove_preflight_rules(),
        prove_aftermath_rules(has_gpus=True),
        prove_aftermath_rules(has_gpus=False),
    ):
        assert found.outcome is Outcome.PASS
        assert found.observed.endswith("parser only")


def test_a_planted_fault_that_no_rule_has_found_leaves_the_run_undecided() -> None:
    planted = [SeededFault(stage="matmul", kind="bit_flip", device="cpu:1")]

    (unseen,) = judge_planted("h", planted, [_finding("exact")])

    assert unseen.outcome is Outcome.INCONCLUSIVE
    assert "matmul:bit_flip@cpu:1" in unseen.observed
    assert judge_planted("h", planted, [_finding("exact", Outcome.FAIL)]) == []
    assert judge_planted("h", [], [_finding("exact")]) == []

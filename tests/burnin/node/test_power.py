"""The power stage on this machine's cores: every fault that repeats, and every one that does not."""

from __future__ import annotations

import pytest

from burnin.node.power import DIGESTS_MIN, Rig, run_power, run_window, set_up
from burnin.rules.arithmetic import judge_digests, judge_first_product, judge_operands
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.burnin.bench_fake import FakeSpeaker, bench_with


def _run(*seeded: str, seed: int = 1) -> FakeSpeaker:
    bench, speaker = bench_with(*seeded, seed=seed)
    run_power(bench, length_s=0.5)
    return speaker


@pytest.fixture(scope="module")
def healthy() -> FakeSpeaker:
    return _run()


def _digest(speaker: FakeSpeaker) -> JsonObject:
    (result,) = speaker.told("power.result")
    return result


def test_a_healthy_device_holds_the_load_then_steps_and_says_what_checking_costs(
    healthy: FakeSpeaker,
) -> None:
    result = _digest(healthy)
    phases = [row["phase"] for series, row in healthy.rows if series == "power"]

    assert phases == ["ramp"] * 3 + ["hold"] * phases.count("hold") + ["steps"] * phases.count("steps")
    assert phases.count("hold") >= 4
    assert phases.count("steps") >= 1
    assert result["check_share"] <= 0.02
    every = result["digest_every"]
    assert result["digests"] == sum(i < DIGESTS_MIN or i % every == 0 for i in range(result["products"]))
    assert healthy.told("loaded")[0]["checked_elements"] == result["digests"] * 1024**2
    assert [c["is_found"] for c in healthy.told("control")] == [True, True]


def test_a_healthy_device_passes_every_rule_on_its_products(healthy: FakeSpeaker) -> None:
    assert judge_operands("d", healthy.told("operands.result")).outcome is Outcome.PASS
    assert judge_first_product("d", healthy.told("reference.result")).outcome is Outcome.PASS
    (found,) = judge_digests({"d": _digest(healthy)}, {"d": 0}, {"d": "x"})
    assert found.outcome is Outcome.PASS


def test_a_corrupted_input_is_named_although_every_product_repeats() -> None:
    speaker = _run("input_flip", seed=7)
    found = judge_operands("d", speaker.told("operands.result"))

    assert _digest(speaker)["dissents"] == 0
    assert found.outcome is Outcome.FAIL
    assert found.observed == "operand a differs before the load, operand a differs after the load"


def test_a_fault_in_every_product_repeats_and_is_outvoted_by_two_siblings(healthy: FakeSpeaker) -> None:
    faulty = _digest(_run("every_product"))
    results = {"a": _digest(healthy), "b": _digest(healthy), "c": faulty}

    assert faulty["dissents"] == 0
    findings = judge_digests(results, dict.fromkeys(results, 0), dict.fromkeys(results, "alike"))
    assert [f.outcome for f in findings] == [Outcome.PASS, Outcome.PASS, Outcome.FAIL]


@pytest.mark.parametrize("kind", ["digest_flip", "nan"])
def test_a_fault_in_one_product_dissents_from_the_others(kind: str) -> None:
    result = _digest(_run(kind))

    assert result["dissents"] == 1


def test_operands_that_were_not_compared_at_the_end_leave_the_device_undecided(healthy: FakeSpeaker) -> None:
    before, _ = healthy.told("operands.result")

    assert judge_operands("d", [before]).outcome is Outcome.INCONCLUSIVE
    assert judge_operands("d", []).outcome is Outcome.INCONCLUSIVE


def test_a_stage_that_ends_before_the_second_of_every_kth_product_has_still_compared_three() -> None:
    bench, speaker = bench_with()
    rig: Rig = set_up(bench)
    rig.digest_every, rig.batch = 10**6, 2

    run_window(bench, rig, "hold", window_s=0.01)
    run_window(bench, rig, "hold", window_s=0.01)

    assert rig.digests == DIGESTS_MIN
    assert len(speaker.rows) == 2

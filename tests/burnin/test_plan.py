"""Plan files, profiles and the order that an agent gets from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from burnin.launcher import longest_s
from burnin.node.order import STAGES, order_from_line, order_to_line
from burnin.node.seeding import kinds_for, parse_seeded_fault
from burnin.plan import PROFILES, PlanSpec
from probes.errors import ConfigError
from probes.spec import load_spec


def _lengths(plan: PlanSpec) -> dict[str, float]:
    return {s.name: round(s.length_s, 3) for s in plan.to_order(seed=1).stages if s.length_s}


def test_every_profile_runs_its_stages_for_its_time_and_says_what_it_leaves_out() -> None:
    for name, profile in PROFILES.items():
        order = PlanSpec.model_validate({"profile": name}).to_order(seed=1)

        assert [stage.name for stage in order.stages] == [s for s in STAGES if s not in profile.left_out]
        assert order.left_out == profile.left_out
        assert order.cycles * sum(s.length_s for s in order.stages) == pytest.approx(profile.load_s)


def test_a_stage_that_states_its_length_has_it_and_the_others_share_the_rest() -> None:
    plan = PlanSpec.model_validate(
        {"duration_s": 30, "matmul": {"length_s": 20}, "only": ["matmul", "allreduce", "power"]}
    )

    assert _lengths(plan) == {"matmul": 20, "allreduce": 3.333, "power": 6.667}


def test_a_soak_begins_its_stages_anew_every_hour_and_a_plan_may_say_otherwise() -> None:
    soak = PlanSpec.model_validate({"profile": "soak"}).to_order(seed=1)
    three_days = PlanSpec.model_validate({"profile": "soak", "duration_s": 72 * 3600}).to_order(seed=1)
    short = PlanSpec.model_validate({"duration_s": 30, "cycle_s": 9, "matmul": {"length_s": 12}})

    assert (soak.cycles, three_days.cycles) == (24, 72)
    assert sum(stage.length_s for stage in soak.stages) == pytest.approx(3600)
    assert short.to_order(seed=1).cycles == 3
    assert _lengths(short)["matmul"] == 4
    assert PlanSpec.model_validate({"profile": "intake"}).to_order(seed=1).cycles == 1
    assert PlanSpec.model_validate({"duration_s": 4, "cycle_s": 60}).to_order(seed=1).cycles == 1


def test_the_launcher_waits_for_all_cycles_and_not_for_ever() -> None:
    whole = PlanSpec.model_validate({"profile": "soak"}).to_order(seed=1)
    one = replace(whole, cycles=1)

    assert 24 * 3600 < longest_s(whole) < 60 * 3600
    assert longest_s(whole) - longest_s(one) == pytest.approx(23 * (2 * 3600 + 6 * 30 + 600))


def test_what_is_left_out_gives_its_time_to_the_others_and_stands_in_the_order() -> None:
    plan = PlanSpec.model_validate({"duration_s": 30, "leave_out": ["allreduce", "aftermath"]})

    assert "allreduce" not in _lengths(plan)
    assert sum(_lengths(plan).values()) == pytest.approx(30, abs=0.01)
    assert plan.to_order(seed=1).left_out == ("allreduce", "aftermath")


def test_a_plan_can_ask_for_a_stage_that_its_profile_leaves_out() -> None:
    gate = PlanSpec.model_validate({"profile": "gate"})
    longer = PlanSpec.model_validate({"profile": "gate", "memory": {"length_s": 9}})
    only = PlanSpec.model_validate({"profile": "gate", "only": ["bandwidth"], "duration_s": 7})

    assert gate.to_order(seed=1).left_out == ("memory", "bandwidth")
    assert longer.to_order(seed=1).left_out == ("bandwidth",)
    assert _lengths(longer)["memory"] == 9
    assert _lengths(only) == {"bandwidth": 7}
    assert only.to_order(seed=1).left_out == ("memory", "matmul", "links", "allreduce", "power")


def test_an_order_survives_its_journey_as_one_line() -> None:
    fault = parse_seeded_fault("matmul:bit_flip@cpu:1")
    order = PlanSpec.model_validate({"gpus_expected": 8}).to_order(seed=7, seeded_faults=(fault,))
    line = order_to_line(order)

    assert line.count("\n") == 1
    assert order_from_line(line) == order


def test_a_seeded_fault_may_belong_to_one_cycle() -> None:
    fault = parse_seeded_fault("memory:bit_flip@cpu:1#17")

    assert (fault.cycle, str(fault)) == (17, "memory:bit_flip@cpu:1#17")
    shown = [kinds_for([fault], stage="memory", device="cpu:1", cycle=n) for n in (1, 17)]
    assert shown == [frozenset(), {"bit_flip"}]


@pytest.mark.parametrize("line", ["{}", "[]", '{"device":"cpu","stages":[{}]}', "not json"])
def test_a_line_that_is_no_order_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not an order|Expecting value"):
        order_from_line(line)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("profil: gate\n", "plan.yaml:1: profil: unknown key; did you mean 'profile'?"),
        ("profile: gate\nmatmul:\n  formats: [fp33]\n", "plan.yaml:3: matmul.formats.0: got 'fp33'"),
        ("leave_out: [matmull]\n", "plan.yaml:1: leave_out.0: got 'matmull'"),
        ("allreduce:\n  sizes_bytes: [1023]\n", "multiple of 4"),
        ("", "the file is empty"),
    ],
)
def test_a_wrong_plan_file_is_refused_with_line_key_and_what_would_be_right(
    text: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(text)

    with pytest.raises(ConfigError) as refused:
        load_spec(file, PlanSpec)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "bit_flip@cpu:1",
        "matmul:bitflip@cpu:1",
        "matmul:nan",
        "aftermath:nan@cpu:0",
        "matmul:nan@cpu:0#",
        "matmul:nan@cpu:0#0",
        "",
    ],
)
def test_a_seeded_fault_that_does_not_exist_is_refused_with_those_that_do(text: str) -> None:
    with pytest.raises(ConfigError, match="matmul:bit_flip"):
        parse_seeded_fault(text)

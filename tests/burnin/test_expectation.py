"""What a model should deliver: every figure has a source, a user's figure goes on top, nothing is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.expectation import FOLDER, ExpectationSpec, expectation_for, shipped_expectations
from burnin.override import OverrideSpec, load_override
from probes.errors import ConfigError


def test_every_model_that_the_burn_in_promises_is_described() -> None:
    names = [name for spec in shipped_expectations() for name in spec.match]

    assert len(names) == len(set(names))
    for model in ("A100", "H100 80GB HBM3", "H100 PCIe", "H200", "B200", "GB200", "GB300"):
        assert any(model in name for name in names), model
    assert len(list(FOLDER.glob("*.yaml"))) == len(shipped_expectations()) == 7


def test_a_model_is_matched_by_its_whole_name() -> None:
    b200, gb200 = expectation_for("NVIDIA B200"), expectation_for("NVIDIA GB200")

    assert b200 is not None
    assert gb200 is not None
    assert b200.model != gb200.model
    assert expectation_for("NVIDIA GeForce RTX 4090") is None


def test_no_floor_rests_on_a_figure_that_nobody_checked() -> None:
    for spec in shipped_expectations():
        expectation = spec.to_expectation()
        floors = [*expectation.tflops_typical.values(), *expectation.allreduce_floors]
        assert not [f for f in floors if "not checked" in f.source], spec.model


def test_a_users_figure_replaces_ours_and_leaves_the_others() -> None:
    own = ExpectationSpec.model_validate(
        {
            "model": "our H200",
            "match": ["NVIDIA H200"],
            "matmul_tflops": {
                "bf16": {"peak": 989, "peak_source": "us", "typical": 650, "typical_source": "us"}
            },
            "sources": {"us": "measured in hall 3, 2026-11"},
        }
    )

    merged = expectation_for("NVIDIA H200", [own])

    assert merged is not None
    assert merged.tflops_typical["bf16"].value == 650
    assert merged.tflops_typical["bf16"].source == "measured in hall 3, 2026-11"
    assert merged.tflops_typical["fp8"].value == 1453.4
    assert merged.figures["memory_gb"].value == 141


def test_a_user_can_describe_a_model_that_we_do_not_know() -> None:
    own = ExpectationSpec.model_validate({"model": "L40S", "match": ["NVIDIA L40S"]})

    found = expectation_for("NVIDIA L40S", [own])

    assert found is not None
    assert found.tflops_typical == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("thresholds: {tflops_share_min: 80}", "less than or equal to 1.5"),
        ("thresholds: {tflop_share_min: 0.8}", "did you mean 'tflops_share_min'"),
        ("xids: {79: {name: lost, verdict: fail}}", "say what to do"),
        ("xids: {79: {name: lost, verdict: retry, next_step: x}}", "'fail', 'count', 'rerun' or 'note'"),
        ("models: [{model: X, match: [X], memory_gb: {value: 80, source: us}}]", "'us' is not among sources"),
        ("models: [{model: X, match: []}]", "at least 1 item"),
    ],
)
def test_a_mistake_in_a_users_file_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"own\.yaml:1: ") as error:
        load_override(path)

    assert complaint in str(error.value)


def test_a_file_may_hold_thresholds_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("thresholds:\n  held_back_share_max: 0.05\n")

    assert load_override(path) == OverrideSpec.model_validate({"thresholds": {"held_back_share_max": 0.05}})

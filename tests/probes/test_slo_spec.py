"""Promises as YAML has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from probes.slo import Slo, Window
from probes.slo_spec import SloSpec, expand, known_slos, load_presets, to_slos


def test_a_percentile_is_the_share_that_keeps_the_bound() -> None:
    spec = SloSpec.model_validate({"metric": "ttft_ms", "statistic": "p99.9", "bound": 500})

    assert spec.to_slo() == Slo(name="ttft_ms_p99.9", metric="ttft_ms", objective=0.999, bound=500)


def test_goodput_takes_an_objective_and_a_name_of_its_own() -> None:
    spec = SloSpec.model_validate({"name": "most", "metric": "goodput", "objective": 0.9, "confidence": 0.9})

    assert spec.to_slo() == Slo(name="most", metric="goodput", objective=0.9, confidence=0.9)


@pytest.mark.parametrize(
    "data",
    [
        {"metric": "ttft_ms", "bound": 1},
        {"metric": "ttft_ms", "bound": 1, "objective": 0.9, "statistic": "p90"},
        {"metric": "ttft_ms", "bound": 1, "statistic": "p0"},
        {"metric": "ttft_ms", "bound": 1, "statistic": "mean"},
        {"metric": "ttft_ms", "bound": 0, "statistic": "p90"},
        {"metric": "goodput", "bound": 1, "objective": 0.9},
        {"metric": "speed", "bound": 1, "objective": 0.9},
    ],
)
def test_a_promise_that_means_nothing_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SloSpec.model_validate(data)


def test_every_preset_has_a_source_and_promises_that_can_be_told_apart() -> None:
    presets = load_presets()

    assert {"chat", "rag", "code", "agents", "mlperf-server/llama3.1-8b"} <= set(presets)
    for name in presets:
        slos = to_slos((SloSpec(preset=name, confidence=0.9),))
        assert all(slo.confidence == 0.9 and name in slo.source for slo in slos)


def test_presets_hold_the_limits_of_mlperf() -> None:
    slos = to_slos((SloSpec(preset="mlperf-interactive/deepseek-r1"),))

    assert [(slo.metric, slo.bound, slo.objective) for slo in slos] == [
        ("ttft_from_schedule_ms", 1500, 0.99),
        ("tpot_ms", 15, 0.99),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"preset": "chatt"},
        {"preset": "chat", "bound": 3},
        {"preset": "chat", "metric": "ttft_ms", "bound": 3, "objective": 0.9},
        {"metrics": {"a": "ttft_ms"}, "preset": "chat"},
        {"metric": "ttft_ms", "bound": 3, "objective": 0.9, "window": {"length_s": 0, "objective": 0.9}},
        {},
    ],
)
def test_presets_and_files_take_nothing_that_they_bring_themselves(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SloSpec.model_validate(data)


def test_an_openslo_file_is_written_out_and_never_dropped(tmp_path: Path) -> None:
    (tmp_path / "slo.yaml").write_text(
        "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: whole}\nspec:\n  budgetingMethod: Timeslices\n"
        "  indicator:\n    metadata: {name: e}\n    spec: {thresholdMetric: {metricSource: {type: x}}}\n"
        "  objectives: [{value: 9, target: 0.9, timeSliceTarget: 0.8, timeSliceWindow: 1m}]\n"
    )
    named = SloSpec(openslo="slo.yaml", metrics={"e": "e2e_ms in s"})

    (spec,) = expand((named,), folder=tmp_path)

    assert spec.to_slo().bound == 9000
    assert spec.to_slo().window == Window(length_s=60, objective=0.9)
    assert SloSpec.model_validate(spec.model_dump()) == spec
    assert known_slos((named,)) is None
    with pytest.raises(ValueError, match=r"slo\.yaml cannot be read here"):
        to_slos((named,))


def test_a_promise_without_the_newer_keys_is_written_as_before() -> None:
    spec = SloSpec(metric="ttft_ms", objective=0.9, bound=5)

    assert set(spec.model_dump()) == {"metric", "bound", "objective", "statistic", "confidence", "name"}

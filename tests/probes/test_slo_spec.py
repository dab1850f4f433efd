"""Promises as YAML has them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from probes.slo import Slo
from probes.slo_spec import SloSpec


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

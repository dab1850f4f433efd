"""The invented faults of the positive controls: found, each by its own rule, and the healthy rest is not."""

from __future__ import annotations

import pytest

from burnin.rules import sensor_controls
from burnin.rules.sensor_controls import sensor_faults
from burnin.rules.sensor_judging import GPU_RULES
from probes.outcome import Outcome


@pytest.mark.parametrize("name", sensor_faults())
def test_the_seeded_fault_is_found(name: str) -> None:
    assert sensor_faults()[name]().outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)


def test_the_same_readings_without_the_fault_pass_every_rule() -> None:
    findings = [judge(sensor_controls._HEALTHY) for judge in GPU_RULES]

    assert {finding.outcome for finding in findings} == {Outcome.PASS}
    assert len(findings) == len({finding.rule for finding in findings}) == 13

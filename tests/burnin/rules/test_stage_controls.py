"""The seeded readings of the stages are found, and a rule that lets them pass would be named."""

from __future__ import annotations

import pytest

from burnin.node.order import LOADED_STAGES
from burnin.rules.controls import prove_rules
from burnin.rules.stage_controls import stage_faults
from probes.outcome import Outcome

STAGES = [stage for stage in LOADED_STAGES if stage_faults(stage)]


@pytest.mark.parametrize("stage", STAGES)
def test_each_seeded_reading_is_found(stage: str) -> None:
    found = prove_rules(stage, stage_faults(stage))

    assert found.outcome is Outcome.PASS, found.observed
    assert all(row["is_found"] for row in found.evidence["controls"])


def test_every_stage_but_matmul_which_has_its_own_seeds_some() -> None:
    assert [stage for stage in LOADED_STAGES if stage != "matmul"] == STAGES


def test_ties_are_undecided_and_lone_dissenters_and_slow_devices_fail() -> None:
    found = {name: judge().outcome for name, judge in stage_faults("power").items()}

    assert found.pop("two that disagree") is Outcome.INCONCLUSIVE
    assert set(found.values()) == {Outcome.FAIL}

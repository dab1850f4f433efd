"""The short form of the study of the burn-in; the long one is in docs/studies/burnin.md."""

from __future__ import annotations

import random

import pytest

from probes.finding import verdict
from probes.outcome import Outcome
from tests.studies.burnin import FAULTS, healthy, judge_trial, study_fault

pytestmark = pytest.mark.needs("gcc")


@pytest.mark.parametrize("name", FAULTS)
def test_each_seeded_fault_is_found_on_its_own_gpu_and_on_no_other(name: str) -> None:
    tally = study_fault(name, range(2))

    assert (tally.right, tally.wrong) == (2, 0)


@pytest.mark.parametrize(("model", "age"), [("A100", 535), ("H200", 570), ("B200", 580)])
def test_healthy_nodes_of_other_models_and_ages_of_driver_pass(model: str, age: int) -> None:
    findings = judge_trial(healthy(random.Random(7), model=model, age=age))

    told = [(f.rule, f.observed) for f in findings if f.outcome not in (Outcome.PASS, None)]
    assert (verdict(findings), told) == (Outcome.PASS, [])

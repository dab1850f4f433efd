"""A short form of the study of verdicts near an endpoint's limit."""

from __future__ import annotations

from collections import Counter

import pytest

from probes.outcome import Outcome
from tests.studies.batch_model import true_limit
from tests.studies.load_queue import OBJECTIVE, SERVER, study

BOUND_MS = 80.0
RUNS = 60


@pytest.fixture(scope="module")
def limit() -> float:
    return true_limit(SERVER, bound_ms=BOUND_MS, objective=OBJECTIVE, requests=40_000)


def test_at_its_limit_a_queue_that_showed_no_burst_by_luck_is_no_pass(limit: float) -> None:
    judged = study(limit, bound_ms=BOUND_MS, seconds=20, runs=RUNS)

    wrong = Counter(one.outcome for one in judged)[Outcome.PASS]
    by_breaches = Counter(one.by_breaches for one in judged)[Outcome.PASS]
    assert wrong <= 8  # a true 5 % gives more than that in 1 of 100 tests
    assert by_breaches > wrong


def test_a_service_far_from_its_limit_passes_as_soon_as_before(limit: float) -> None:
    judged = study(0.5 * limit, bound_ms=BOUND_MS, seconds=10, runs=RUNS)

    assert Counter(one.outcome for one in judged)[Outcome.PASS] >= RUNS - 5

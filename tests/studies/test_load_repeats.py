"""The model behind the study of repeated runs."""

from __future__ import annotations

from tests.studies.load_repeats import OBJECTIVE, SLOTS, STEP_MS, TOKENS, late_share, true_limit


def test_the_true_limit_lies_below_capacity_and_parts_what_holds_from_what_does_not() -> None:
    capacity = SLOTS / (TOKENS * STEP_MS / 1000)
    limit = true_limit(requests=20_000)

    assert 0.8 * capacity < limit < capacity
    assert late_share(0.8 * limit, requests=20_000, seed=2) < (1 - OBJECTIVE) / 10
    assert late_share(1.2 * limit, requests=20_000, seed=2) > 0.5

"""The model behind the study of repeated runs."""

from __future__ import annotations

from tests.studies.batch_model import late_share, true_limit
from tests.studies.load_repeats import BOUND_MS, OBJECTIVE, SERVER


def test_the_true_limit_lies_below_capacity_and_parts_what_holds_from_what_does_not() -> None:
    limit = true_limit(SERVER, bound_ms=BOUND_MS, objective=OBJECTIVE, requests=20_000)
    below, above = (
        late_share(SERVER, ratio * limit, bound_ms=BOUND_MS, requests=20_000, seed=2) for ratio in (0.8, 1.2)
    )

    assert 0.8 * SERVER.capacity_per_s < limit < SERVER.capacity_per_s
    assert below < (1 - OBJECTIVE) / 10
    assert above > 0.5

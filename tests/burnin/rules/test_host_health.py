"""Counters of the host: what was added in the run, and what a machine does not have."""

from __future__ import annotations

import pytest

from burnin.rules.host_health import LIMITS, judge_counters
from probes.host import COUNTERS
from probes.outcome import Outcome

NOTHING: dict[str, int | None] = dict.fromkeys(COUNTERS)


def _judge(name: str, before: int | None, after: int | None, run_s: float = 60) -> Outcome | None:
    findings = judge_counters("h", NOTHING | {name: before}, NOTHING | {name: after}, run_s=run_s)
    return {f.subject.rpartition("/")[2]: f.outcome for f in findings}[name]


def test_every_counter_that_is_read_has_a_limit() -> None:
    assert set(LIMITS) == set(COUNTERS)


@pytest.mark.parametrize(
    ("name", "added", "outcome"),
    [
        ("edac_uncorrected", 1, Outcome.FAIL),
        ("edac_corrected", 10, Outcome.PASS),
        ("edac_corrected", 11, Outcome.FAIL),
        ("machine_checks", 1, Outcome.FAIL),
        ("core_throttled_ms", 30_000, Outcome.PASS),
        ("core_throttled_ms", 30_001, Outcome.FAIL),
        ("oom_kills", 1, Outcome.INCONCLUSIVE),
    ],
)
def test_only_what_was_added_counts(name: str, added: int, outcome: Outcome) -> None:
    assert _judge(name, 5000, 5000) is Outcome.PASS
    assert _judge(name, 5000, 5000 + added) is outcome


def test_a_counter_that_the_machine_lacks_does_not_apply_and_one_that_vanished_is_undecided() -> None:
    assert _judge("edac_uncorrected", None, None) is None
    assert _judge("edac_uncorrected", 0, None) is Outcome.INCONCLUSIVE


def test_without_snapshots_nothing_passes() -> None:
    assert {f.outcome for f in judge_counters("h", None, None, run_s=60)} == {Outcome.INCONCLUSIVE}

"""The verdict on a training job: what each rule passes, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.impact.recovery import FaultSeen
from experiments.injecting.ledger import Entry
from experiments.training.evidence import TrainingSeen
from experiments.training.expectations import Expectations
from experiments.training.judging import judge_training
from experiments.training.moments import find_training_times
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.training_progress import find_progress
from probes.training_step import Step
from tests.probes.training_rows import STEP_NS, rows_of

SECOND = 1_000_000_000
INJECT_NS = 10 * SECOND
AGENTS = {"node-0": [100, 1], "node-1": [101, 1]}


def _fault(
    *, ends_by: str = "platform", t_inject_ns: int = INJECT_NS, undone_ns: int | None = None
) -> FaultSeen:
    data = {"id": "1", "fault": "rank.kill", "subject": "rank:rank-1", "ends_by": ends_by}
    return FaultSeen(
        data=data | {"t_inject_ns": t_inject_ns},
        captured={"victims": [{"name": "rank-1", "node": "node-0", "pid": 7, "start_time": 7}]},
        is_verified=True,
        observed="gone",
        t_undone_ns=undone_ns,
    )


def _well(last_step: int = 600, *, world: int = 4) -> list[Step]:
    """Return a job that is killed at 10 s, after step 190, and goes on at 14 s from the checkpoint of 180."""
    rows = rows_of(1, 190, start_ns=INJECT_NS - 191 * STEP_NS, world=4)
    return rows + rows_of(181, last_step, start_ns=14 * SECOND, restart=1, world=world)


def _seen(
    rows: list[Step], *, faults: tuple[FaultSeen, ...] = (_fault(),), end_s: float = 34.0, **other: object
) -> TrainingSeen:
    end_ns = round(end_s * 1e9)
    fields: JsonObject = {
        "subject": "job:train",
        "expected": Expectations(resume_within_s=10),
        "rows": tuple(sorted(rows, key=lambda row: row.t_ns)),
        "progress": find_progress(rows),
        "start_ns": min((row.t_ns for row in rows), default=0),
        "end_ns": end_ns,
        "is_lab": True,
        "checkpoint_every": 20,
        "makes_checkpoints": True,
        "resumes": ({"t_ns": 13 * SECOND, "from_step": 180, "passed_over": []},),
        "checkpoints": {"whole": [600, 580], "spoiled": []},
        "nodes": ({"agents": AGENTS}, {"agents": AGENTS}),
        "used_pct": (),
        "why_unread": "",
        "faults": faults,
        "times": find_training_times(rows, faults=faults, end_ns=end_ns) if faults else None,
    }
    return TrainingSeen(**fields | other)


def _findings(seen: TrainingSeen, entries: tuple[Entry, ...] = ()) -> dict[str, Finding]:
    return {
        f.rule + (f"@{f.subject.partition('@')[2]}" if "@" in f.subject else ""): f
        for f in judge_training(seen, entries)
    }


def _not_passed(seen: TrainingSeen) -> dict[str, Outcome | None]:
    return {name: f.outcome for name, f in _findings(seen).items() if f.outcome is not Outcome.PASS}


def test_a_job_that_is_back_in_time_passes_every_rule_with_its_figures() -> None:
    found = _findings(_seen(_well()))

    assert {name: f.outcome for name, f in found.items() if f.outcome is not Outcome.PASS} == {}
    assert found["recovery"].observed == "a new step 4.55 s after the fault"
    assert found["lost-steps"].observed == "10 steps done again, in 1 restart"
    assert found["redundancy"].observed == "all 4 ranks made new steps after 4.55 s"
    assert found["ettr"].evidence["ettr"] == pytest.approx(579 * 0.05 / 33.5, abs=0.005)


def test_the_effective_time_stands_beside_what_young_and_daly_expect() -> None:
    rows = [replace(row, checkpoint_s=0.1 if row.step % 20 == 0 else 0.0) for row in _well()]

    evidence = _findings(_seen(rows))["ettr"].evidence

    assert evidence["checkpoint_write_s"] == pytest.approx(0.1)
    assert evidence["interval_s"] == pytest.approx(1.0)
    assert evidence["restart_s"] == pytest.approx(4.55 + 0.05 - 10 * 0.05, abs=0.06)
    assert evidence["best_interval_s"] == pytest.approx((2 * 0.1 * evidence["wall_s"]) ** 0.5)
    assert 0.7 < evidence["expected_ettr"] < 0.8


def test_no_row_of_a_step_is_never_a_pass_and_never_a_failure() -> None:
    findings = judge_training(_seen([], nodes=(), checkpoints=None, resumes=()), ())

    assert verdict(findings) is Outcome.INCONCLUSIVE
    assert not [f.rule for f in findings if f.outcome is Outcome.FAIL]


def test_a_job_without_checkpoints_fails_even_where_it_was_lucky_otherwise() -> None:
    rows = rows_of(1, 190, start_ns=INJECT_NS - 191 * STEP_NS, world=4, has_checkpoints=False)
    rows += rows_of(1, 450, start_ns=12 * SECOND, restart=1, world=4, has_checkpoints=False)
    seen = _seen(rows, makes_checkpoints=False, checkpoint_every=None, end_s=34.4)

    found = _findings(seen)

    assert found["lost-steps"].outcome is Outcome.FAIL
    assert "makes no checkpoints" in found["lost-steps"].observed
    assert "190 were lost" in found["lost-steps"].observed
    assert found["checkpoints"].outcome is Outcome.FAIL
    assert found["recovery"].outcome is Outcome.FAIL


def test_a_job_that_stays_down_fails_and_one_that_was_given_no_time_is_open() -> None:
    rows = [row for row in _well() if row.t_ns < INJECT_NS]

    given, cut_short = _not_passed(_seen(rows, end_s=40)), _not_passed(_seen(rows, end_s=12))

    assert (given["recovery"], given["redundancy"]) == (Outcome.FAIL, Outcome.FAIL)
    assert (cut_short["recovery"], cut_short["redundancy"]) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)
    assert given["progress"] is Outcome.INCONCLUSIVE


def test_more_steps_lost_than_lie_between_two_checkpoints_fail_unless_so_many_may_be() -> None:
    rows = rows_of(1, 190, start_ns=INJECT_NS - 191 * STEP_NS, world=4)
    rows += rows_of(161, 580, start_ns=13 * SECOND, restart=1, world=4)
    seen = _seen(rows)
    allowed = replace(seen, expected=Expectations(resume_within_s=10, lost_steps_max=40))

    assert _not_passed(seen) == {"lost-steps": Outcome.FAIL}
    assert _not_passed(allowed) == {}


def test_steps_that_are_lost_when_a_node_comes_back_count_as_well() -> None:
    rows = rows_of(1, 190, start_ns=INJECT_NS - 191 * STEP_NS, world=4)
    rows += rows_of(181, 300, start_ns=12 * SECOND, restart=1, world=2)
    rows += rows_of(241, 600, start_ns=19 * SECOND, restart=2, world=4)

    found = _findings(_seen(rows, expected=Expectations(resume_within_s=15), end_s=37))

    assert found["lost-steps"].outcome is Outcome.FAIL
    assert found["lost-steps"].observed == "60 steps done again, in 2 restarts"
    assert found["recovery"].observed == "a new step 2.55 s after the fault"
    assert found["redundancy"].observed == "all 4 ranks made new steps after 12.05 s"


def test_a_job_that_goes_on_with_half_of_its_ranks_has_not_got_them_back() -> None:
    found = _findings(_seen(_well(world=2)))

    assert found["redundancy"].outcome is Outcome.FAIL
    assert found["redundancy"].observed == "at the end 2 of 4 ranks made new steps"


def test_a_job_that_is_slower_afterwards_fails_and_the_slow_rank_is_named() -> None:
    rows = rows_of(1, 190, start_ns=INJECT_NS - 191 * STEP_NS, world=4)
    rows += rows_of(181, 480, start_ns=14 * SECOND, restart=1, world=4, step_ns=2 * STEP_NS, slow_rank=3)

    found = _findings(_seen(rows, end_s=44))["progress"]

    assert found.outcome is Outcome.FAIL
    assert found.observed.startswith("50% (")
    assert found.next_step == "look at rank 3: 3.0 times as slow as the others"


def test_what_our_undo_had_to_mend_is_no_healing() -> None:
    entry = Entry(id="1", fault="rank.kill", subject="rank:rank-1", captured={}, state="undone",
                  detail={"has_acted": True, "did": "started node-0"})  # fmt: skip

    found = _findings(_seen(_well()), (entry,))["redundancy"]

    assert found.outcome is Outcome.FAIL
    assert "undo started node-0" in found.observed


def test_a_fault_that_only_undoing_ends_is_clocked_from_there() -> None:
    rows = rows_of(1, 190, start_ns=INJECT_NS - 191 * STEP_NS, world=4)
    rows += rows_of(191, 600, start_ns=15 * SECOND, world=4)
    fault = _fault(ends_by="undo", undone_ns=14 * SECOND)

    found = _findings(_seen(rows, faults=(fault,), end_s=35.4, resumes=()))

    assert found["recovery"].observed == "a new step 1.05 s after the fault was undone"
    assert found["lost-steps"].observed == "none: the job never began again"
    assert found["detection"].observed == "noticed after 0.95 s by steps that do not come"
    assert verdict(found.values()) is Outcome.PASS


def test_a_fault_that_no_step_shows_is_not_shown_to_matter() -> None:
    rows = rows_of(1, 600, start_ns=0, world=4)

    found = _findings(_seen(rows, end_s=30, resumes=()))

    assert found["detection"].outcome is Outcome.INCONCLUSIVE
    assert found["recovery"].observed.endswith("progress never stopped")


def test_a_starved_job_fails_and_is_named_as_starved_also_where_nothing_was_injected() -> None:
    rows = rows_of(1, 190, start_ns=0, world=4, data_wait_s=0.05)

    found = _findings(_seen(rows, faults=(), end_s=10))

    assert found["input@before"].outcome is Outcome.FAIL
    assert found["input@before"].observed.startswith("starving input: waits for data 71%")


@pytest.mark.parametrize(
    ("other", "outcome", "said"),
    [
        ({"checkpoints": {"whole": [580], "spoiled": [600]}}, Outcome.FAIL, "of step 600 are spoiled"),
        ({"checkpoints": {"whole": [], "spoiled": []}}, Outcome.FAIL, "there is none"),
        ({"checkpoints": None}, Outcome.INCONCLUSIVE, "nobody looked"),
        (
            {"resumes": ({"t_ns": 13 * SECOND, "from_step": 0, "passed_over": []},)},
            Outcome.FAIL,
            "began with step 0",
        ),
        ({"is_lab": False}, None, "not known"),
        (
            {
                "resumes": (
                    {
                        "t_ns": 13 * SECOND,
                        "from_step": 160,
                        "passed_over": [{"step": 180, "why": "checksum"}],
                    },
                )
            },
            Outcome.PASS,
            "passed over as spoiled: step 180",
        ),
    ],
)
def test_checkpoints_have_to_be_taken_and_whole(
    other: JsonObject, outcome: Outcome | None, said: str
) -> None:
    found = _findings(_seen(_well(), **other))["checkpoints"]

    assert found.outcome is outcome
    assert said in found.observed


def test_a_launcher_that_was_replaced_on_another_node_is_collateral_and_the_victims_is_not() -> None:
    def after(name: str) -> TrainingSeen:
        return _seen(_well(), nodes=({"agents": AGENTS}, {"agents": AGENTS | {name: [200, 9]}}))

    assert _findings(after("node-0"))["collateral"].outcome is Outcome.PASS
    assert _findings(after("node-1"))["collateral"].outcome is Outcome.FAIL


def test_effective_time_below_what_was_stated_fails() -> None:
    stated = Expectations(resume_within_s=10, ettr_min=0.95)

    assert _not_passed(_seen(_well(), expected=stated)) == {"ettr": Outcome.FAIL}

"""Progress of a training job: what counts, what was lost, when it went on."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from probes.training_progress import find_hang, find_progress, find_recovery_of
from probes.training_step import Step, step_from_json
from tests.probes.training_rows import STEP_NS, rows_of

SECOND = 1_000_000_000


def _job(reached: list[int], *, every: int, down_s: float, world: int = 2) -> tuple[list[Step], list[int]]:
    """Return rows of a job that dies at each of these steps and resumes from its last checkpoint."""
    rows: list[Step] = []
    deaths, first, start_ns = [], 1, 1000 * SECOND
    for restart, last in enumerate(reached):
        last = max(last, first)
        rows += rows_of(first, last, start_ns=start_ns, restart=restart, world=world, every=every)
        deaths.append(rows[-1].t_ns)
        start_ns = rows[-1].t_ns + round(down_s * 1e9)
        first = last // every * every + 1
    return rows, deaths


@given(
    reached=st.lists(st.integers(min_value=1, max_value=150), min_size=1, max_size=5),
    every=st.integers(min_value=1, max_value=40),
    world=st.integers(min_value=1, max_value=4),
    seed=st.integers(),
)
def test_each_step_counts_once_whatever_was_done_again_and_in_whatever_order_rows_are_read(
    reached: list[int], every: int, world: int, seed: int
) -> None:
    rows, _ = _job(reached, every=every, down_s=3, world=world)
    random.Random(seed).shuffle(rows)

    progress = find_progress(rows)

    assert progress.new_steps == len({row.step for row in rows})
    assert progress.new_steps + progress.redone_steps == len({(row.restart, row.step) for row in rows})
    assert sum(resume.lost for resume in progress.resumes) >= progress.redone_steps
    assert all(resume.lost < max(every, 1) + max(reached) for resume in progress.resumes)


@given(
    death=st.integers(min_value=2, max_value=200),
    every=st.integers(min_value=1, max_value=50),
    down_ms=st.integers(min_value=200, max_value=60_000),
)
def test_lost_steps_and_time_to_resume_of_a_death_are_what_the_job_shows(
    death: int, every: int, down_ms: int
) -> None:
    rows, (died_ns, _) = _job([death, death + 100], every=every, down_s=down_ms / 1000)

    recovery = find_recovery_of(find_progress(rows), died_ns, end_ns=rows[-1].t_ns + 1, stall_s=1)

    assert recovery.lost == death % every
    assert recovery.restarts == 1
    assert recovery.resumed_ns is not None
    wanted_s = down_ms / 1000 + (recovery.lost + 1) * STEP_NS / 1e9
    assert abs((recovery.resumed_ns - died_ns) / 1e9 - wanted_s) < 0.001


def test_a_job_without_checkpoints_loses_all_of_its_steps() -> None:
    rows = rows_of(0, 79, start_ns=0, has_checkpoints=False)
    rows += rows_of(0, 99, start_ns=10 * SECOND, restart=1, has_checkpoints=False)

    recovery = find_recovery_of(find_progress(rows), 4 * SECOND, end_ns=60 * SECOND, stall_s=1)

    assert recovery.lost == 80
    assert recovery.resumed_ns == 10 * SECOND + 81 * STEP_NS


def test_a_job_that_dies_again_before_it_is_back_has_resumed_only_after_the_second_time() -> None:
    rows = rows_of(1, 45, start_ns=0)
    rows += rows_of(41, 43, start_ns=5 * SECOND, restart=1)
    rows += rows_of(41, 60, start_ns=9 * SECOND, restart=2)

    recovery = find_recovery_of(find_progress(rows), rows[89].t_ns, end_ns=60 * SECOND, stall_s=1)

    assert recovery.restarts == 2
    assert recovery.lost == 5
    assert recovery.resumed_ns == 9 * SECOND + 6 * STEP_NS


def test_a_job_that_never_comes_back_has_not_resumed() -> None:
    rows = rows_of(1, 45, start_ns=0)

    recovery = find_recovery_of(find_progress(rows), rows[-1].t_ns, end_ns=60 * SECOND, stall_s=1)

    assert (recovery.stopped_ns, recovery.resumed_ns) == (rows[-2].t_ns, None)


def test_a_stall_without_a_restart_ends_with_its_next_step_and_loses_nothing() -> None:
    rows = rows_of(1, 45, start_ns=0)
    rows += rows_of(46, 90, start_ns=10 * SECOND)

    recovery = find_recovery_of(find_progress(rows), 2 * SECOND, end_ns=60 * SECOND, stall_s=1)

    assert (recovery.lost, recovery.restarts) == (0, 0)
    assert recovery.stopped_ns == 45 * STEP_NS
    assert recovery.resumed_ns == 10 * SECOND + STEP_NS


def test_a_job_that_goes_on_as_if_nothing_were_never_stopped() -> None:
    rows = rows_of(1, 400, start_ns=0)

    recovery = find_recovery_of(find_progress(rows), 5 * SECOND, end_ns=20 * SECOND, stall_s=1)

    assert recovery.stopped_ns is None
    assert recovery.resumed_ns is not None
    assert recovery.resumed_ns - 5 * SECOND <= STEP_NS


def test_ranks_that_change_places_and_a_launcher_that_counts_anew_are_still_one_restart() -> None:
    rows = rows_of(1, 45, start_ns=0, world=4, restart=3)
    rows += rows_of(41, 60, start_ns=5 * SECOND, world=2, restart=0)

    progress = find_progress(rows)

    assert [resume.lost for resume in progress.resumes] == [5]
    assert progress.new_steps == 60


def test_restart_counts_that_differ_from_rank_to_rank_are_no_restarts() -> None:
    rows = rows_of(1, 45, start_ns=0)
    mixed = [
        step_from_json({"t_ns": r.t_ns, "step": r.step, "rank": r.rank, "restart": r.rank}) for r in rows
    ]

    assert find_progress([row for row in mixed if row is not None]).resumes == ()


def test_a_log_of_every_tenth_step_loses_in_steps_not_in_lines() -> None:
    rows = [row for row in rows_of(10, 100, start_ns=0, world=1) if row.step % 10 == 0]
    rows += [row for row in rows_of(70, 200, start_ns=20 * SECOND, restart=1, world=1) if row.step % 10 == 0]

    progress = find_progress(rows)

    assert progress.stride == 10
    assert [resume.lost for resume in progress.resumes] == [40]
    assert progress.typical_s is not None
    assert abs(progress.typical_s - 0.5) < 0.001


def test_a_hang_is_told_by_the_time_that_a_step_takes() -> None:
    progress = find_progress(rows_of(1, 45, start_ns=0))
    last_ns = progress.steps[-1].t_ns

    assert find_hang(progress, now_ns=last_ns + SECOND // 2) is None
    hang = find_hang(progress, now_ns=last_ns + 5 * SECOND)
    assert hang is not None
    assert round(hang.factor) == 100
    assert find_hang(find_progress([]), now_ns=last_ns) is None


def test_a_row_that_is_none_is_passed_over() -> None:
    assert step_from_json({"t_ns": 1}) is None
    assert step_from_json({"t_ns": 1, "step": True}) is None
    assert step_from_json({"t_ns": 1, "step": -1}) is None
    assert step_from_json({"t_ns": 1, "step": 2, "loss": float("nan"), "world": "x"}) == Step(t_ns=1, step=2)

"""Answers under load against the same when idle: what is the load's doing, and whose."""

from __future__ import annotations

import random
from collections.abc import Sequence

from loadtests.endpoint.task_solving import solve, spoil
from loadtests.rules.correctness import Answer, graded, judge_answers, judge_replica_answers, judge_same_text
from loadtests.spec.task import TasksSpec
from probes.finding import Finding
from probes.outcome import Outcome

TASKS = TasksSpec(count=400).to_plan()


def answers(right: Sequence[bool], *, replicas: Sequence[str] = ("a",), text: str = "") -> list[Answer]:
    return [
        Answer(
            number=number,
            index=number,
            text=text or f"{number} {is_right}",
            replica=replicas[number % len(replicas)],
            is_right=is_right,
            reason="" if is_right else "wrong",
        )
        for number, is_right in enumerate(right)
    ]


def judge(idle: Sequence[Answer], load: Sequence[Answer]) -> Finding:
    return judge_answers(idle, load, tasks=TASKS, seed=1, subject="endpoint:x")


def test_answers_that_stay_right_pass_when_there_are_enough_of_them() -> None:
    enough, few = (
        judge(answers([True] * 183), answers([True] * 183)),
        judge(answers([True] * 100), answers([True] * 100)),
    )

    assert enough.outcome is Outcome.PASS
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "tasks.count" in few.next_step


def test_three_in_a_hundred_wrong_under_load_fail() -> None:
    wrong = [number % 33 != 0 for number in range(300)]
    found = judge(answers([True] * 300), answers(wrong))

    assert found.outcome is Outcome.FAIL
    assert found.evidence["load"] == {"answers": 300, "right": 290}
    assert found.evidence["wrong_under_load"][0]["said"] == "0 False"


def test_tasks_that_the_model_cannot_do_when_idle_count_against_nobody() -> None:
    half = [number % 2 == 0 for number in range(400)]

    assert judge(answers(half), answers(half)).outcome is Outcome.PASS
    assert "200 of 400 right when idle, 200 of 400 under load" in judge(answers(half), answers(half)).observed
    assert judge(answers([False] * 400), answers([False] * 400)).outcome is Outcome.INCONCLUSIVE


def test_a_model_that_is_right_by_chance_is_not_the_loads_doing() -> None:
    chance = random.Random(4)
    failed = 0
    for _ in range(100):
        idle, load = ([chance.random() < 0.7 for _ in range(200)] for _ in range(2))
        failed += judge(answers(idle), answers(load)).outcome is Outcome.FAIL

    assert failed <= 11


def test_nothing_asked_again_is_not_decided() -> None:
    assert judge(answers([True] * 300), []).outcome is Outcome.INCONCLUSIVE
    assert judge([], answers([True] * 300)).outcome is Outcome.INCONCLUSIVE
    assert judge([], answers([False] * 300)).outcome is Outcome.INCONCLUSIVE


def test_one_replica_with_more_wrong_answers_is_named_and_only_that_one() -> None:
    wrong = [number % 3 != 1 or number % 15 != 1 for number in range(600)]
    load = answers(wrong, replicas=("a", "b", "c"))
    found = judge_replica_answers(answers([True] * 600), load, tasks=TASKS, subject="endpoint:x")

    assert [(one.subject, one.outcome) for one in found] == [("replica:b", Outcome.FAIL)]
    assert found[0].evidence["replicas"]["b"]["wrong"] == 40
    assert found[0].next_step


def test_replicas_that_are_alike_are_not_named_and_one_alone_is_compared_with_nobody() -> None:
    alike = answers([number % 31 != 0 for number in range(600)], replicas=("a", "b", "c"))
    idle = answers([True] * 600)

    (found,) = judge_replica_answers(idle, alike, tasks=TASKS, subject="endpoint:x")
    assert found.outcome is Outcome.PASS
    assert judge_replica_answers(idle, answers([False] * 600), tasks=TASKS, subject="endpoint:x") == []


def test_other_text_is_a_failure_only_where_batch_invariance_was_declared() -> None:
    idle, load = answers([True] * 9), answers([True] * 9, text="other")

    shown, held = (
        judge_same_text(idle, load, is_batch_invariant=declared, subject="endpoint:x")
        for declared in (False, True)
    )
    assert (shown.outcome, held.outcome) == (None, Outcome.FAIL)
    assert "9 of 9" in shown.observed
    same = judge_same_text(idle, idle, is_batch_invariant=True, subject="endpoint:x")
    nothing = judge_same_text(idle, [], is_batch_invariant=True, subject="endpoint:x")
    assert (same.outcome, nothing.outcome) == (Outcome.PASS, Outcome.INCONCLUSIVE)


def test_grading_again_needs_only_seed_number_and_text() -> None:
    said = solve(TASKS.task(17, seed=3).prompt)
    assert said is not None

    one, other = (graded(17, text, index=5, replica="r", tasks=TASKS, seed=3) for text in (said, spoil(said)))
    assert (one.is_right, other.is_right) == (True, False)
    assert "wanted" in other.reason

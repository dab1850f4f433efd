"""Tasks: made from the seed, solved from their words alone, graded exactly."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.endpoint.task_solving import solve, spoil
from loadtests.rules.grading import grade
from loadtests.spec.task import TasksSpec
from loadtests.traffic.tasks import KINDS, OPENING, Task, make_task

WORDINGS = (
    "ANSWER: {}",
    "answer: {}",
    "**Answer:** {}",
    "ANSWER: **{}**",
    "The answer is {}.",
    "ANSWER: {}.",
    "Let me think step by step. 17 and 4 make 21.\n\nANSWER: {}",
    "ANSWER: `{}`",
    "{}",
    "ANSWER: {}\n",
    "First I thought ANSWER: 5\nbut no.\nANSWER: {}",
)
NUMBER_WORDINGS = (
    "ANSWER: ${}",
    "ANSWER: {}.0",
    "ANSWER: x = {}",
    "ANSWER: {} pears",
    "ANSWER: $\\boxed{{{}}}$",
    "ANSWER: the total is {}",
)
EXAMPLES = st.builds(
    make_task,
    st.integers(0, 10**6),
    kind=st.sampled_from(KINDS),
    difficulty=st.integers(1, 3),
    seed=st.integers(0, 99),
)
NUMBERS = EXAMPLES.filter(lambda task: task.kind in ("sum", "story"))


def wordings(task: Task) -> tuple[str, ...]:
    if task.kind == "json":
        return ("{}", "```json\n{}\n```", "Here it is:\n{}\nDone.")
    return WORDINGS + (NUMBER_WORDINGS if task.kind in ("sum", "story") else ())


@given(EXAMPLES)
@settings(max_examples=150, deadline=None)
def test_what_solves_a_task_from_its_words_finds_its_answer_and_never_when_spoilt(task: Task) -> None:
    said = solve(task.prompt)
    assert said is not None

    assert task.prompt.startswith(OPENING)
    assert grade(task, said).is_right
    assert not grade(task, spoil(said)).is_right
    assert not grade(task, said[: len(said) * 2 // 5]).is_right


@given(EXAMPLES)
@settings(max_examples=150, deadline=None)
def test_right_answers_pass_however_they_are_worded(task: Task) -> None:
    graded = {form: grade(task, form.format(task.answer)) for form in wordings(task)}

    assert {form: one.reason for form, one in graded.items() if not one.is_right} == {}


@given(NUMBERS, st.integers(-(10**7), 10**7))
@settings(max_examples=300, deadline=None)
def test_another_number_never_passes(task: Task, other: int) -> None:
    if other == int(task.answer):
        return

    assert [form for form in wordings(task) if grade(task, form.format(other)).is_right] == []


@given(EXAMPLES, EXAMPLES)
@settings(max_examples=150, deadline=None)
def test_the_answer_to_another_task_never_passes(task: Task, other: Task) -> None:
    if other.answer == task.answer:
        return

    assert [form for form in wordings(task) if grade(task, form.format(other.answer)).is_right] == []


@given(NUMBERS)
@settings(max_examples=100, deadline=None)
def test_a_doubt_about_the_number_never_passes(task: Task) -> None:
    n = int(task.answer)
    doubts = [
        *(f"{n} or {n + 1}", f"not {n}", f"-{abs(n) + 1}", f"{n}%", f"{n}e3", f"{n}/2", f"{n}.5", f"{n}0"),
        *(f"{n}^2", f"{n} * 2", f"1{abs(n)}", f"{n} {n}", f"about {n}", f"{-n - 1}", f"{n}, {n + 1}", ""),
        *(f"minus {n + 1}", f"{n}k", f"{n},{n}", f"#{n + 1}", "?", f"{n}-{n}"),
    ]

    assert [text for text in doubts if grade(task, f"ANSWER: {text}").is_right] == []


@given(EXAMPLES, st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_text_that_does_not_hold_the_answer_never_passes_and_breaks_nothing(task: Task, text: str) -> None:
    digits = "".join(re.findall(r"\d", task.answer))
    if digits in "".join(re.findall(r"\d", text)):
        return

    assert not grade(task, text).is_right
    assert not grade(task, f"ANSWER: {text}").is_right


def test_thousands_separators_and_other_minus_signs_are_read() -> None:
    task = Task(number=0, kind="sum", difficulty=1, prompt="", answer="-12345")

    assert grade(task, "ANSWER: −12,345").is_right
    assert not grade(task, "ANSWER: 12,345").is_right
    assert not grade(task, "ANSWER: -12,34,5").is_right


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found | {"more": 1},
        lambda found: {key: value for key, value in found.items() if key != "count"},
        lambda found: found | {"count": str(found["count"])},
        lambda found: found | {"count": float(found["count"])},
        lambda found: found | {"sizes": list(reversed(found["sizes"]))},
        lambda found: found | {"sizes": [[size] for size in found["sizes"]]},
        lambda found: {"result": found},
        lambda found: [found, found],
    ],
)
def test_json_with_another_key_type_or_order_of_a_list_is_wrong(change) -> None:  # type: ignore[no-untyped-def]
    task = make_task(5, kind="json", difficulty=3, seed=1)

    assert not grade(task, json.dumps(change(json.loads(task.answer)))).is_right


def test_the_inside_of_a_broken_object_is_no_object() -> None:
    task = make_task(5, kind="json", difficulty=1, seed=1)

    assert not grade(task, '{"a": ' + task.answer).is_right
    assert not grade(task, f"{task.answer} {task.answer}").is_right
    assert not grade(task, task.answer.replace('"item"', '"colour": 1, "item"')).is_right


def test_a_share_of_the_arrivals_are_tasks_at_places_that_no_balancer_can_meet() -> None:
    plan = TasksSpec(share=0.1, count=50).to_plan()
    numbers = [plan.number_at(index, seed=3) for index in range(10_000)]
    asked = [(index, number) for index, number in enumerate(numbers) if number is not None]

    assert len(asked) == 1000
    assert {number for _, number in asked} == set(range(50))
    for replicas in (2, 5, 10):
        shares = [sum(index % replicas == r for index, _ in asked) / 1000 for r in range(replicas)]
        assert max(abs(share - 1 / replicas) for share in shares) < 0.05
    assert numbers == [plan.number_at(index, seed=3) for index in range(10_000)]
    assert numbers != [plan.number_at(index, seed=4) for index in range(10_000)]


def test_higher_difficulty_makes_longer_tasks_of_every_kind() -> None:
    chance = random.Random(1)
    for kind in KINDS:
        sizes = [
            sum(
                len(make_task(chance.randrange(10**6), kind=kind, difficulty=d, seed=1).prompt)
                for _ in range(40)
            )
            for d in (1, 2, 3)
        ]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[2]

"""Rules over the answers to checked tasks: idle against under load, on the same tasks, and by replica.

A task that the model cannot do when idle counts against nobody: what is judged is what the load changed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.rules.exact_tests import (
    Stratum,
    holm,
    p_more_than_others,
    p_more_wrong,
    share_at_least,
    share_at_most,
)
from loadtests.rules.grading import grade
from loadtests.traffic.tasks import TaskPlan
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

_EXAMPLES = 5
_NEXT_WRONG = "read the wrong answers in the evidence; compare kernels, batch sizes, cache and quantization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer that came whole."""

    number: int  # of its task
    index: int  # of its request
    text: str
    replica: str
    is_right: bool
    reason: str


def graded(number: int, text: str, *, index: int, replica: str, tasks: TaskPlan, seed: int) -> Answer:
    """Grade one answer; the task is made again from the seed."""
    result = grade(tasks.task(number, seed=seed), text)
    return Answer(
        number=number,
        index=index,
        text=text,
        replica=replica,
        is_right=result.is_right,
        reason=result.reason,
    )


def judge_answers(
    idle: Sequence[Answer], load: Sequence[Answer], *, tasks: TaskPlan, seed: int, subject: str
) -> Finding:
    """Judge whether answers are as right under load as they were when idle, on the same tasks.

    FAIL when chance does not explain the wrong ones; PASS when more than ``worse_by_max`` lost is excluded.
    """
    doubt = 1 - tasks.confidence
    chance = p_more_wrong(_strata(idle, load))
    bound, pairs = _lost_at_most(idle, load, doubt=doubt, seed=seed)
    if chance <= doubt:
        outcome = Outcome.FAIL
    elif bound is not None and bound <= tasks.worse_by_max:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    lost = "nothing can be said of it" if bound is None else f"at most {bound:.1%} were lost to load"
    return Finding(
        rule="answers-right",
        subject=subject,
        outcome=outcome,
        observed=f"{_share(idle)} right when idle, {_share(load)} under load; {pairs} tasks were right when "
        f"idle and asked again, {lost} at {tasks.confidence:.0%} confidence (p = {chance:.2g})",
        expected=f"at most {tasks.worse_by_max:.1%} of what is right when idle is wrong under load",
        unit="answers",
        evidence={
            "idle": _table(idle),
            "load": _table(load),
            "p": chance,
            "lost_at_most": bound,
            "pairs": pairs,
            "wrong_under_load": _examples(idle, load),
        },
        next_step=_next_step(outcome, idle, pairs=pairs),
    )


def _next_step(outcome: Outcome, idle: Sequence[Answer], *, pairs: int) -> str:
    if outcome is Outcome.PASS:
        return ""
    if outcome is Outcome.FAIL:
        return _NEXT_WRONG
    if not pairs:
        return "choose easier tasks (tasks.difficulty): none was answered rightly when idle and asked again"
    if sum(answer.is_right for answer in idle) < len(idle) / 2:
        return "choose easier tasks (tasks.difficulty), or more of them (tasks.count)"
    return "ask more tasks: raise tasks.count and tasks.share, or run longer"


def _strata(idle: Sequence[Answer], load: Sequence[Answer]) -> list[Stratum]:
    by_task: dict[int, list[int]] = {}
    for place, answers in ((0, idle), (2, load)):
        for answer in answers:
            counts = by_task.setdefault(answer.number, [0, 0, 0, 0])
            counts[place] += not answer.is_right
            counts[place + 1] += 1
    return [Stratum(idle_wrong=a, idle=b, load_wrong=c, load=d) for a, b, c, d in by_task.values()]


def _lost_at_most(
    idle: Sequence[Answer], load: Sequence[Answer], *, doubt: float, seed: int
) -> tuple[float | None, int]:
    """Bound the share of rightly answered tasks that load makes wrong, net of those it makes right.

    One answer under load for each task, drawn by the seed: several to one task are not independent.
    """
    pairs = _pairs(idle, load, seed=seed)
    right = [after for before, after in pairs if before.is_right]
    wrong = [after for before, after in pairs if not before.is_right]
    if not right:
        return None, 0
    half = doubt / 2 if wrong else doubt
    lost = share_at_most(sum(not after.is_right for after in right), len(right), doubt=half)
    won = share_at_least(sum(after.is_right for after in wrong), len(wrong), doubt=half)
    return max(0.0, lost - won * len(wrong) / len(right)), len(right)


def _pairs(idle: Sequence[Answer], load: Sequence[Answer], *, seed: int) -> list[tuple[Answer, Answer]]:
    again: dict[int, list[Answer]] = {}
    for answer in load:
        again.setdefault(answer.number, []).append(answer)
    return [
        (answer, random.Random(f"pair:{seed}:{answer.number}").choice(again[answer.number]))
        for answer in idle
        if answer.number in again
    ]


def judge_same_text(
    idle: Sequence[Answer], load: Sequence[Answer], *, is_batch_invariant: bool, subject: str
) -> Finding:
    """Judge whether equal prompts get equal text; only a server that promises it is held to it."""
    before = {answer.number: answer.text for answer in idle}
    compared = [answer for answer in load if answer.number in before]
    other = [answer for answer in compared if answer.text != before[answer.number]]
    outcome: Outcome | None = None
    if is_batch_invariant:
        outcome = Outcome.FAIL if other else Outcome.PASS if compared else Outcome.INCONCLUSIVE
    return Finding(
        rule="answers-same",
        subject=subject,
        outcome=outcome,
        observed=f"{len(other)} of {len(compared)} answers under load have another text than when idle",
        expected="the same text (the workload says batch_invariant)"
        if is_batch_invariant
        else "shown: only where endpoint.batch_invariant is set must texts be equal",
        unit="answers",
        evidence={
            "compared": len(compared),
            "other": len(other),
            "examples": [
                {
                    "request": a.index,
                    "idle": before[a.number][:200],
                    "load": a.text[:200],
                    "replica": a.replica,
                }
                for a in other[:_EXAMPLES]
            ],
        },
        next_step=""
        if outcome in (Outcome.PASS, None)
        else "check that every replica runs batch-invariant kernels with one build and configuration",
    )


def judge_replica_answers(
    idle: Sequence[Answer], load: Sequence[Answer], *, tasks: TaskPlan, subject: str
) -> list[Finding]:
    """Name each replica with more wrong answers than the others; of tasks that went well when idle only."""
    can_do = {answer.number for answer in idle if answer.is_right}
    by_replica: dict[str, list[Answer]] = {}
    for answer in load:
        if answer.number in can_do and answer.replica:
            by_replica.setdefault(answer.replica, []).append(answer)
    bad = {name: sum(not answer.is_right for answer in found) for name, found in by_replica.items()}
    asked = {name: len(found) for name, found in by_replica.items()}
    if len(asked) < 2:
        return []
    chances = {
        name: p_more_than_others(
            bad[name], asked[name], bad_all=sum(bad.values()), asked_all=sum(asked.values())
        )
        for name in asked
    }
    named = holm(chances, doubt=1 - tasks.confidence)
    table: JsonObject = {
        name: {"answers": asked[name], "wrong": bad[name], "p": chances[name]} for name in sorted(asked)
    }
    return [
        _replica_finding(f"replica:{name}", Outcome.FAIL, table, bad=bad[name], asked=asked[name])
        for name in sorted(named)
    ] or [_replica_finding(subject, Outcome.PASS, table, bad=sum(bad.values()), asked=sum(asked.values()))]


def _replica_finding(subject: str, outcome: Outcome, table: JsonObject, *, bad: int, asked: int) -> Finding:
    return Finding(
        rule="replica-answers",
        subject=subject,
        outcome=outcome,
        observed=f"{bad} of {asked} answers are wrong"
        + (f", over {len(table)} replicas" if bad == 0 else ""),
        expected="no replica has more wrong answers than chance among the replicas explains",
        unit="answers",
        evidence={"replicas": table},
        next_step=""
        if outcome is Outcome.PASS
        else "take this replica out, and run a burn-in of its devices",
    )


def _share(answers: Sequence[Answer]) -> str:
    return f"{sum(answer.is_right for answer in answers)} of {len(answers)}"


def _table(answers: Sequence[Answer]) -> JsonObject:
    return {"answers": len(answers), "right": sum(answer.is_right for answer in answers)}


def _examples(idle: Sequence[Answer], load: Sequence[Answer]) -> list[Mapping[str, object]]:
    can_do = {answer.number for answer in idle if answer.is_right}
    wrong = [answer for answer in load if not answer.is_right and answer.number in can_do]
    return [
        {"task": a.number, "request": a.index, "replica": a.replica, "reason": a.reason, "said": a.text[:200]}
        for a in wrong[:_EXAMPLES]
    ]

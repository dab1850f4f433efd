"""Checked answers, idle beside under load, as the findings about them have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run
from reports.text import one_line

_RULE, _BY_REPLICA = "answers-right", "replica-answers"
EXAMPLES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """Some answers, and how many of them were right."""

    name: str
    answers: int
    right: int

    @property
    def share(self) -> float:
        """How many of them were right; 0 of none."""
        return self.right / self.answers if self.answers else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a report says of the answers to checked tasks."""

    outcome: Outcome | None
    observed: str
    rows: tuple[AnswerRow, ...]  # idle, under load, then each replica
    examples: tuple[str, ...]  # wrong under load, as the record has them


def read_answers(run: Run) -> Answers | None:
    """Return what was found; None: no task was asked."""
    finding = next((f for f in run.findings if f.rule == _RULE), None)
    if finding is None:
        return None
    examples = finding.evidence.get("wrong_under_load")
    return Answers(
        outcome=finding.outcome,
        observed=finding.observed,
        rows=tuple(_rows(finding, run)),
        examples=tuple(one_line(str(example), 300) for example in examples[:EXAMPLES_MAX])
        if isinstance(examples, list)
        else (),
    )


def _rows(finding: Finding, run: Run) -> Iterator[AnswerRow]:
    for name, key in (("idle", "idle"), ("under load", "load")):
        found = finding.evidence.get(key)
        if isinstance(found, dict) and {"answers", "right"} <= found.keys():
            yield AnswerRow(name=name, answers=int(found["answers"]), right=int(found["right"]))
    replicas = next((f.evidence.get("replicas") for f in run.findings if f.rule == _BY_REPLICA), None)
    for name, counts in (replicas if isinstance(replicas, dict) else {}).items():
        yield _replica(str(name), counts)


def _replica(name: str, counts: JsonObject) -> AnswerRow:
    answers = int(counts.get("answers", 0))
    return AnswerRow(
        name=f"replica {name}, under load", answers=answers, right=answers - int(counts.get("wrong", 0))
    )

"""What a workload file may say about checked tasks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from loadtests.traffic.tasks import TaskPlan
from probes.spec import Spec

_Kind = Literal["sum", "sort", "story", "lookup", "json", "canary"]


class TasksSpec(Spec):
    """Requests with a known answer among the others: asked when idle first, then the same under load."""

    share: Annotated[float, Field(ge=0.01, le=1, description="of the arrivals, in steps of 0.01")] = 0.1
    kinds: Annotated[tuple[_Kind, ...], Field(min_length=1)] = (
        "sum",
        "sort",
        "story",
        "lookup",
        "json",
        "canary",
    )
    difficulty: Annotated[
        tuple[Annotated[int, Field(ge=1, le=3)], ...],
        Field(min_length=1, description="levels to mix, from 1 to 3"),
    ] = (1, 2)
    count: Annotated[
        int, Field(ge=10, le=10_000, description="different tasks; each is asked once when idle")
    ] = 200
    output_tokens: Annotated[int, Field(ge=8, le=100_000, description="limit of a task's answer")] = 256
    confidence: Annotated[float, Field(ge=0.5, lt=1, description="of PASS and of FAIL, each")] = 0.95
    worse_by_max: Annotated[
        float, Field(gt=0, lt=1, description="share of answers lost to load that a PASS has to exclude")
    ] = 0.02
    idle_s_max: Annotated[
        float, Field(gt=0, le=7200, description="end of the idle phase, however many were asked")
    ] = 600.0

    @field_validator("kinds", "difficulty")
    @classmethod
    def _is_each_once(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) != len(values):
            raise ValueError("each is named once")
        return values

    def to_plan(self) -> TaskPlan:
        """Return it as the rest of the code takes it."""
        return TaskPlan(
            share=self.share,
            kinds=self.kinds,
            difficulties=self.difficulty,
            count=self.count,
            output_tokens=self.output_tokens,
            confidence=self.confidence,
            worse_by_max=self.worse_by_max,
            idle_s_max=self.idle_s_max,
        )

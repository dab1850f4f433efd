"""What a plan file may say about the training step of a fleet: that it says anything asks for it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from probes.json_types import JsonObject
from probes.spec import Spec


class TrainingSpec(Spec):
    """Our own small transformer, or the user's own command in its place."""

    steps: int = Field(default=6, ge=3, le=10_000, description="Of each of the three runs of our own model.")
    sharding: Literal["ddp", "fsdp"] | None = Field(
        default=None, description="Of our own model; else fsdp on GPUs and ddp on CPUs."
    )
    command: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Your own, word by word, once for each GPU as torchrun does; it stands in the record.",
    )
    step_regex: str = Field(
        default=r"step[ =:]+(\d+)",
        description="Finds a step in a line of the command; group 1 is its number.",
    )
    loss_regex: str | None = Field(
        default=r"loss[ =:]+([-+.\deE]+|nan|inf)", description="Finds its loss in that line; group 1."
    )

    @field_validator("step_regex", "loss_regex")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            if pattern is not None and re.compile(pattern).groups < 1:
                raise ValueError("put what is to be read into a group: (...)")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return pattern

    def to_json(self) -> JsonObject:
        """Return it as plain values: what goes into the record, and from there to the hosts."""
        return self.model_dump()

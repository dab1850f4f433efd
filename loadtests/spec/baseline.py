"""What a workload says about earlier runs that it must not fall behind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from probes.spec import Spec
from reports.figure_kind import KINDS


class BaselineSpec(Spec):
    """``baseline: baselines/chat.json``, or the same with more said about it."""

    file: Annotated[
        str, Field(min_length=1, description="of `overproof baseline`; a run folder or a folder of runs too")
    ]
    figures: Annotated[
        tuple[str, ...], Field(description="those that may not get worse; without it all that both have")
    ] = ()
    margin_pct: Annotated[
        float | None, Field(gt=0, le=100, description="changes within it are none; else by figure")
    ] = None

    @field_validator("figures")
    @classmethod
    def _are_known(cls, figures: tuple[str, ...]) -> tuple[str, ...]:
        unknown = next((name for name in figures if name not in KINDS), None)
        if unknown is not None:
            raise ValueError(f"{unknown!r} is unknown; one of {', '.join(KINDS)}")
        return figures


def as_baseline(value: object) -> object:
    """Return the long form of a baseline that is given by its file alone."""
    return {"file": value} if isinstance(value, str) else value

"""``training`` of an experiment's extension, as a file states it."""

from __future__ import annotations

from pydantic import Field

from experiments.training.expectations import Expectations
from probes.spec import Spec
from probes.training_input import WAIT_SHARE_MAX


class TrainingSpec(Spec):
    """What a training job has to stand, in place of traffic and its promises."""

    steady_steps: int = Field(
        default=100,
        ge=10,
        le=100_000,
        description="Steps that have to be seen before the fault and after it.",
    )
    resume_within_s: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="Seconds from the fault to the first step beyond all before; absent: recovery_s.",
    )
    lost_steps_max: int | None = Field(
        default=None,
        ge=0,
        description="Steps that may be done again; absent: those of one checkpoint interval.",
    )
    rate_share_min: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Share of the rate before the fault that has to be there afterwards.",
    )
    ettr_min: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Effective training time over the whole; absent: what the other bounds leave of it.",
    )
    wait_share_max: float = Field(
        default=WAIT_SHARE_MAX, gt=0, lt=1, description="Share of its step time that it may wait for data."
    )
    mttf_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds between failures to expect in service, for the best checkpoint interval.",
    )

    def to_expectations(self, *, recovery_s: float) -> Expectations:
        """Return the bounds; what is absent is within the recovery that the experiment states anyway."""
        row = self.model_dump()
        row["resume_within_s"] = self.resume_within_s or recovery_s
        return Expectations(**row)

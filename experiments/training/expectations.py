"""What an experiment expects of a training job."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """The bounds that a training job is judged by."""

    resume_within_s: float  # from the fault to the first step beyond all that was done before
    steady_steps: int = 100  # that each phase but the middle one has to show
    lost_steps_max: int | None = None  # None: what lies between two checkpoints
    rate_share_min: float = 0.7  # of the rate before, afterwards
    ettr_min: float | None = None  # None: what the other bounds leave of the day
    wait_share_max: float = 0.2  # of step time, waiting for data
    mttf_s: float | None = None  # to expect in service; None: that of this very day

"""A training job of the user's own, as an experiment's target names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from probes.training_log import JobLog, JobLogSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedJob:
    """A job that is watched in place of traffic."""

    log: JobLog
    gpus: tuple[int, ...] | None  # of this machine, by NVML's index; empty: all; None: none of them is its


class JobSpec(JobLogSpec):
    """Its log, and its GPUs where they are in this machine."""

    gpus: Literal["all"] | tuple[int, ...] | None = Field(
        default=None,
        description="GPUs of this machine that it trains on, by index, or all; absent: they are elsewhere.",
    )

    def to_watched(self, folder: Path) -> WatchedJob:
        """Return the job; the path of its log counts from ``folder``."""
        gpus: tuple[int, ...] | None = () if isinstance(self.gpus, str) else self.gpus
        return WatchedJob(log=self.to_job_log(folder), gpus=gpus)

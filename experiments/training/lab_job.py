"""The lab's training job of a game day: one that runs, or one of the day's own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.processes.detached import last_line
from experiments.training.job import JobPlan, job_command
from experiments.training.job_folder import LOG_FILE, Job, read_job, trains_in_full
from probes.child import start_child, wait_until
from probes.errors import ConfigError, TargetError

READY_TIMEOUT_S = 120.0  # each rank imports torch first


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChoice:
    """How to start a training job where none runs."""

    is_restarting: bool = True
    has_checkpoints: bool = True
    seed: int = 1


def start_lab_job(choice: JobChoice, folder: Path, *, env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a job that leaves with us; its folder is there."""
    plan = JobPlan(
        folder=folder,
        seed=choice.seed,
        is_restarting=choice.is_restarting,
    )
    if not choice.has_checkpoints:
        plan = replace(plan, checkpoint_every_steps=None)
    with (folder / LOG_FILE).open("w") as log:
        return start_child(job_command(plan, lifeline=True), stdout=log, stderr=log, env=env)


def take_lab_job(folder: Path, choice: JobChoice, *, child: subprocess.Popen[str] | None) -> Job:
    """Wait until every rank of a job trains; ``child`` is its supervisor where it is ours.

    Raises:
        ConfigError: the job that runs is another one than was asked for.
        TargetError: a rank does not train.
    """

    def is_decided() -> bool:
        return trains_in_full(folder) or (child is not None and child.poll() is not None)

    wait_until(is_decided, timeout_s=READY_TIMEOUT_S, interval_s=0.2)
    if not trains_in_full(folder):
        raise TargetError(f"training job {folder}: not every rank trains; {last_line(folder / LOG_FILE)}")
    job = read_job(folder)
    has_checkpoints = job.checkpoint_every_steps is not None
    if (job.is_restarting, has_checkpoints) != (choice.is_restarting, choice.has_checkpoints):
        raise ConfigError(f"training job {folder}: is not as asked for; `overproof lab train down` stops it")
    return job

"""A target of which only what the experiment declares is known; a folder under ``--out`` stands for it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from experiments.day import Day
from experiments.declared.judging import judge_bystanders, judge_ended
from experiments.evidence import Evidence
from experiments.experiment import Experiment
from experiments.impact.recovery import Times
from experiments.injecting import permission
from experiments.injecting.permission import Condition
from experiments.targets.kind import Asked, Ground, Reached, TargetKind
from experiments.targets.target import target_folder
from experiments.training.watch import TrainingWatch, watch_job
from probes.finding import Finding


def folder_of(experiment: Experiment, out: Path) -> Path:
    """Return the folder of a target that the experiment names."""
    return target_folder(experiment.target.name or "unnamed", out)


def _ground(experiment: Experiment, folder: Path, _seed: int) -> Ground:
    target = experiment.target
    return Ground(
        where={"target": target.name, "folder": str(folder), "url": target.endpoint},
        surroundings=contextlib.nullcontext,
    )


def _conditions(asked: Asked) -> Sequence[Condition]:
    name = asked.experiment.target.name
    if asked.run and not name:  # an experiment for plain Chaos Toolkit, which names no target
        return asked.now()
    return [
        permission.look_at_permission(asked.folder),
        *asked.now(),
        permission.look_at_declared_leftovers(name, asked.out),
    ]


def watched_job(day: Day) -> TrainingWatch | None:
    """Return what watches the training job of the user's own, where the target has one."""
    target, wanted = day.experiment.target, day.experiment.training
    if target.job is None or wanted is None:
        return None
    return watch_job(target.name, target.job, wanted, day.writer)


def taken_folder(day: Day) -> Path:
    """Return the folder of the target, made where there is none, with other game days kept off it."""
    folder = folder_of(day.experiment, day.out)
    folder.mkdir(parents=True, exist_ok=True)
    day.take(folder)
    return folder


def reached_at(day: Day, folder: Path, training: TrainingWatch | None = None) -> Reached:
    """Put a target that the experiment names on the timeline."""
    url = day.experiment.target.endpoint
    day.event("target.named", name=day.experiment.target.name, url=url)
    return Reached(folder=folder, url=url, training=training)


def _reach(day: Day) -> Reached:
    training = watched_job(day)
    if not day.experiment.target.name:
        return reached_at(day, day.folder, training)
    folder = folder_of(day.experiment, day.out)
    if permission.look_at_permission(folder).is_met:
        day.take(folder)
    return reached_at(day, folder, training)


def judge_declared(seen: Evidence, times: Times) -> list[Finding]:
    """Judge what can be seen of faults that are only declared."""
    subject = seen.victims_subject
    ended = judge_ended(seen.faults, seen.entries, subject=subject, evidence=times.to_json())
    return [ended, judge_bystanders(subject)]


KIND = TargetKind(
    folder=folder_of,
    ground=_ground,
    conditions=_conditions,
    reach=_reach,
    judge=lambda seen, times: [] if seen.training is not None else judge_declared(seen, times),
)

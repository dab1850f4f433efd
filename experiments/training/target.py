"""The lab's training job as the target of a game day: one that runs under ``--out``, else one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.day import Day
from experiments.experiment import Experiment
from experiments.injecting import permission
from experiments.injecting.permission import Condition
from experiments.lab.control import process_to_json
from experiments.plan import in_environment, process_lines
from experiments.targets.all import TRAINING
from experiments.targets.kind import Asked, Ground, Reached, TargetKind
from experiments.training.actions import JOB_VARIABLE
from experiments.training.job_folder import FOLDER_NAME, is_job_alive, read_job
from experiments.training.lab_job import JobChoice, start_lab_job, take_lab_job
from experiments.training.watch import watch_lab_job
from probes.errors import ConfigError


def _folder(_: Experiment, out: Path) -> Path:
    return (out / FOLDER_NAME).resolve()


def _ground(_: Experiment, folder: Path, seed: int) -> Ground:
    job = read_job(folder)
    return Ground(
        where={"target": TRAINING, "folder": str(job.folder), "supervisor": process_to_json(job.supervisor)},
        surroundings=lambda: in_environment(JOB_VARIABLE, job.folder, seed),
    )


def _conditions(asked: Asked) -> Sequence[Condition]:
    job = read_job(asked.folder)
    return [
        permission.look_at_permission(job.folder),
        *asked.now(),
        permission.look_at_leftovers(job.supervisor, asked.out),
        *([] if asked.run else [permission.look_at_ranks(job)]),
        *asked.alerts(),
    ]


def _reach(day: Day) -> Reached:
    assert day.experiment.training is not None
    day.progress.step("training job", "running", "launchers, storage and ranks; torch takes a while")
    wanted = JobChoice(
        is_restarting=day.lab.is_restarting, has_checkpoints=day.lab.has_checkpoints, seed=day.lab.seed
    )
    folder, child = _folder(day.experiment, day.out), None
    is_ours = not is_job_alive(folder)
    if is_ours and day.plan_hash:
        raise ConfigError(
            f"--plan: is about a job that runs, and none does in {folder}; `overproof lab train up`"
        )
    if is_ours:
        folder = day.folder / FOLDER_NAME
        folder.mkdir()
        permission.allow(folder)
        child = start_lab_job(wanted, folder, env=day.marked())
        day.ends("training job", child)
    day.take(folder)
    job = take_lab_job(folder, wanted, child=child)
    day.progress.step("training job", "done", f"{len(job.ranks)} ranks on {len(job.nodes)} nodes")
    training = watch_lab_job(job, day.experiment.training, day.writer)
    return Reached(folder=training.folder, training=training)


KIND = TargetKind(
    folder=_folder,
    ground=_ground,
    lines=partial(process_lines, of="of their kind", serve="run"),
    conditions=_conditions,
    reach=_reach,
)

"""The lab as the target of a game day: one that runs under ``--out``, else one of the day's own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.actions import LAB_VARIABLE
from experiments.day import Day
from experiments.experiment import Experiment
from experiments.injecting import permission
from experiments.injecting.permission import Condition
from experiments.lab.control import FOLDER_NAME, Lab, is_lab_alive, process_to_json, read_lab
from experiments.lab.judging import judge_collateral, judge_redundancy
from experiments.lab.sampler import LabSampler
from experiments.lab.supervisor import LabPlan, all_serve, lab_command, last_words, log_file
from experiments.plan import Hit, in_environment, process_lines
from experiments.targets.kind import Asked, Ground, Held, Reached, TargetKind
from probes.child import start_child, wait_until
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject

READY_TIMEOUT_S = 30.0


def _folder(_: Experiment, out: Path) -> Path:
    return (out / FOLDER_NAME).resolve()


def _ground(_: Experiment, folder: Path, seed: int) -> Ground:
    lab = read_lab(folder)

    def refine(hit: Hit, captured: JsonObject) -> Hit:
        names = {str(victim["name"]) for victim in hit.victims}
        carried = [r.in_flight for r in lab.replicas if r.name in names or "trouble" in captured]
        serving = sum(replica.name not in names for replica in lab.serving)
        return replace(hit, replicas=len(lab.replicas), others_serving=serving, in_flight=sum(carried))

    return Ground(
        where={"folder": str(lab.folder), "supervisor": process_to_json(lab.supervisor)},
        surroundings=lambda: in_environment(LAB_VARIABLE, lab.folder, seed),
        refine=refine,
    )


def _lines(hit: Hit) -> list[str]:
    under_way = f"; {hit.in_flight} requests under way there"
    return process_lines(hit, of="replicas", serve="serve", under_way=under_way)


def _conditions(asked: Asked) -> Sequence[Condition]:
    lab = read_lab(asked.folder)
    return [
        permission.look_at_permission(lab.folder),
        *asked.now(),
        permission.look_at_leftovers(lab.supervisor, asked.out),
        *([] if asked.run else [permission.look_at_health(lab)]),
        *permission.look_at_work(lab, asked.experiment.lab_step_work_ms),
        *asked.alerts(),
    ]


def _reach(day: Day) -> Reached:
    day.progress.step("lab", "running", "gateway and replicas")
    folder, child = _folder(day.experiment, day.out), None
    is_ours = not is_lab_alive(folder)
    if is_ours and day.plan_hash:
        raise ConfigError(f"--plan: is about a lab that runs, and none does in {folder}; `overproof lab up`")
    if is_ours:
        folder = day.folder / FOLDER_NAME
        child = _start(day, folder)
    day.take(folder)
    lab = _wait_for(folder, child)
    if lab.is_restarting != day.lab.is_restarting:
        raise ConfigError(f"lab {folder}: is not as asked for; `overproof lab down` stops it")
    day.event("lab.ready", url=lab.url, folder=str(folder), is_ours=is_ours, replicas=len(lab.replicas))
    day.progress.step("lab", "done", f"{len(lab.replicas)} replicas behind {lab.url}")
    return Reached(folder=lab.folder, url=lab.url, variables={LAB_VARIABLE: str(lab.folder)})


def _start(day: Day, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    permission.allow(folder)
    plan = LabPlan(
        folder=folder,
        seed=day.lab.seed,
        is_restarting=day.lab.is_restarting,
        step_work_ms=day.experiment.lab_step_work_ms,
    )
    with log_file(folder).open("w") as log:
        child = start_child(lab_command(plan, lifeline=True), stdout=log, stderr=log, env=day.marked())
    day.ends("lab", child)
    return child


def _wait_for(folder: Path, child: subprocess.Popen[str] | None) -> Lab:
    def is_decided() -> bool:
        return all_serve(folder) or (child is not None and child.poll() is not None)

    wait_until(is_decided, timeout_s=READY_TIMEOUT_S, interval_s=0.1)
    if not all_serve(folder):
        raise TargetError(f"lab {folder}: not every replica serves; {last_words(folder)}")
    return read_lab(folder)


def _hold(day: Day, asked: Asked) -> Held:
    sampler = LabSampler(asked.folder, day.writer)
    day.stack.callback(sampler.stop)
    sampler.start()

    def check() -> None:
        if sampler.error is not None:
            raise sampler.error

    return Held(check=check)


KIND = TargetKind(
    folder=_folder,
    ground=_ground,
    lines=_lines,
    conditions=_conditions,
    reach=_reach,
    hold=_hold,
    judge=lambda seen, _: [judge_redundancy(seen), judge_collateral(seen)],
)

"""Commands of ``overproof lab``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.training.cli import app as train
from probes.errors import ConfigError, TargetError

app = typer.Typer(
    help="The rehearsal cluster: a gateway, supervised replicas of the simulated endpoint, a training job.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(train, name="train")

Out = Annotated[Path, typer.Option(help="Folder whose lab this is about.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
READY_TIMEOUT_S = 30.0


@app.command()
def up(
    out: Out = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0: any free one.")] = 8400,
    replicas: Annotated[int, typer.Option(min=1, max=64, help="Replicas behind the gateway.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the replicas' random choices.")] = 1,
    no_restart: Annotated[bool, typer.Option("--no-restart", help="Do not restart what dies.")] = False,
    backoff_s: Annotated[float, typer.Option(min=0, help="Seconds from a death to the restart.")] = 1.0,
    load_s: Annotated[float, typer.Option(min=0, help="Seconds that a restarted replica loads.")] = 3.0,
    liveness_s: Annotated[
        float, typer.Option(min=0, help="Seconds of failed checks until a replica is killed; 0: never.")
    ] = 5.0,
    step_work_ms: Annotated[
        float, typer.Option(min=0, help="Processor time that each step of a replica takes, in milliseconds.")
    ] = 0.0,
    replicas_max: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Scale by load: at least --replicas, at most so many."),
    ] = None,
    in_flight_target: Annotated[
        int, typer.Option(min=1, help="Requests under way per replica that the scaling aims at.")
    ] = 6,
    scale_up_s: Annotated[
        float, typer.Option(min=0, help="Seconds of too many requests before replicas are started.")
    ] = 2.0,
    scale_down_s: Annotated[
        float, typer.Option(min=0, help="Seconds of too few requests before replicas are released.")
    ] = 10.0,
    scale_fault: Annotated[
        str, typer.Option(help="How the scaling fails: never-up, late-up, never-down or flap.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Start a lab that stays until `lab down`; its endpoint is printed once every replica serves."""
    from experiments.autoscaler import FAULTS, ScalePlan
    from experiments.lab import LabPlan, start_detached
    from experiments.lab_control import FOLDER_NAME, ask_lab, is_lab_alive, stop_lab

    folder = (out / FOLDER_NAME).resolve()
    if scale_fault and (scale_fault not in FAULTS or replicas_max is None):
        known = ", ".join(FAULTS)
        raise ConfigError(f"--scale-fault {scale_fault!r}: wanted one of {known}, with --replicas-max")
    if replicas_max is not None and replicas_max < replicas:
        raise ConfigError(f"--replicas-max {replicas_max}: less than --replicas {replicas}")
    if is_lab_alive(folder):
        raise ConfigError(f"lab {folder}: one runs here already; `overproof lab down` stops it")
    stop_lab(folder)  # what a crashed one may have left
    plan = LabPlan(
        folder=folder,
        port=port,
        replicas=replicas,
        seed=seed,
        is_restarting=not no_restart,
        backoff_s=backoff_s,
        load_s=load_s,
        liveness_s=liveness_s,
        step_work_ms=step_work_ms,
        scale=None
        if replicas_max is None
        else ScalePlan(
            replicas_min=replicas,
            replicas_max=replicas_max,
            in_flight_target=in_flight_target,
            up_s=scale_up_s,
            down_s=scale_down_s,
            fault=scale_fault,
        ),
    )
    start_detached(plan, timeout_s=READY_TIMEOUT_S)
    _print(ask_lab(folder, {"do": "status"}), folder, as_json=as_json)


@app.command()
def down(out: Out = Path("runs"), as_json: AsJson = False) -> None:
    """Stop the lab and see that every process of it is gone, also after it has crashed."""
    from experiments.lab_control import FOLDER_NAME, stop_lab

    folder = (out / FOLDER_NAME).resolve()
    stopped = stop_lab(folder)
    if as_json:
        sys.stdout.write(json.dumps({"lab": str(folder), "stopped": stopped}) + "\n")
    else:
        said = f"stopped {len(stopped)} processes" if stopped else "none was running"
        sys.stdout.write(f"lab {folder}: {said}\n")


@app.command()
def status(out: Out = Path("runs"), as_json: AsJson = False) -> None:
    """Say what runs in the lab and what serves."""
    from experiments.lab_control import FOLDER_NAME, ask_lab, is_lab_alive

    folder = (out / FOLDER_NAME).resolve()
    if not is_lab_alive(folder):
        raise TargetError(f"lab {folder}: none runs; `overproof lab up` starts one")
    _print(ask_lab(folder, {"do": "status"}), folder, as_json=as_json)


def _print(state: dict[str, object], folder: Path, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"lab": str(folder)} | state) + "\n")
        return
    replicas = state["replicas"]
    assert isinstance(replicas, list)
    for row in replicas:
        serving = "serves" if row["is_serving"] else "does not serve"
        process = f"pid {row['pid']}" if row["pid"] is not None else "no process"
        sys.stdout.write(f"{row['name']}: {serving}, {process}, {row['restarts']} restarts\n")
    sys.stdout.write(f"{state['url']}\n")

"""Commands of ``overproof lab train``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from probes.errors import ConfigError, TargetError

app = typer.Typer(
    help="The rehearsal training job: torchrun with elastic restart and checkpoints, on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder whose training job this is about.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
READY_TIMEOUT_S = 120.0  # each rank imports torch first


@app.command()
def up(
    out: Out = Path("runs"),
    nodes: Annotated[int, typer.Option(min=1, max=8, help="Nodes: one torchrun agent each.")] = 2,
    ranks_per_node: Annotated[int, typer.Option(min=1, max=8, help="Ranks of each node.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the model and the data.")] = 1,
    step_s: Annotated[
        float, typer.Option(min=0.002, help="Seconds that the device needs for a step.")
    ] = 0.05,
    checkpoint_every_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 20,
    no_checkpoints: Annotated[bool, typer.Option("--no-checkpoints", help="Make no checkpoints.")] = False,
    batch_s: Annotated[
        float, typer.Option(min=0, help="Seconds that the storage needs for a batch; much of it starves.")
    ] = 0.0,
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="Start nothing again: neither ranks nor nodes.")
    ] = False,
    collective_timeout_s: Annotated[
        float, typer.Option(min=0.5, help="Seconds that a rank waits for the others before it gives up.")
    ] = 5.0,
    node_back_s: Annotated[
        float, typer.Option(min=0, help="Seconds from the loss of a node to its replacement.")
    ] = 15.0,
    as_json: AsJson = False,
) -> None:
    """Start a training job that stays until `lab train down`; it is printed once every rank trains."""
    from experiments.training.job import JobClocks, JobPlan, start_detached_job
    from experiments.training.job_folder import FOLDER_NAME, is_job_alive, stop_job

    folder = (out / FOLDER_NAME).resolve()
    if is_job_alive(folder):
        raise ConfigError(
            f"training job {folder}: one runs here already; `overproof lab train down` stops it"
        )
    stop_job(folder)  # what a crashed one may have left
    plan = JobPlan(
        folder=folder,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        seed=seed,
        step_s=step_s,
        checkpoint_every_steps=None if no_checkpoints else checkpoint_every_steps,
        batch_s=batch_s,
        is_restarting=not no_restart,
        clocks=JobClocks(collective_timeout_s=collective_timeout_s, node_back_s=node_back_s),
    )
    start_detached_job(plan, timeout_s=READY_TIMEOUT_S)
    _print(folder, as_json=as_json)


@app.command()
def down(out: Out = Path("runs"), as_json: AsJson = False) -> None:
    """Stop the training job and see that every process of it is gone, also after it has crashed."""
    from experiments.training.job_folder import FOLDER_NAME, stop_job

    folder = (out / FOLDER_NAME).resolve()
    stopped = stop_job(folder)
    if as_json:
        sys.stdout.write(json.dumps({"job": str(folder), "stopped": stopped}) + "\n")
    else:
        said = f"stopped {len(stopped)} processes" if stopped else "none was running"
        sys.stdout.write(f"training job {folder}: {said}\n")


@app.command()
def status(out: Out = Path("runs"), as_json: AsJson = False) -> None:
    """Say which ranks of the training job run, and how far they are."""
    from experiments.training.job_folder import FOLDER_NAME, is_job_alive

    folder = (out / FOLDER_NAME).resolve()
    if not is_job_alive(folder):
        raise TargetError(f"training job {folder}: none runs; `overproof lab train up` starts one")
    _print(folder, as_json=as_json)


def _print(folder: Path, *, as_json: bool) -> None:
    from experiments.training.job_folder import last_row, read_job, read_state

    if as_json:
        sys.stdout.write(json.dumps({"job": str(folder)} | (read_state(folder) or {})) + "\n")
        return
    job = read_job(folder)
    for node in job.nodes:
        agent = f"pid {node.agent.pid}" if node.agent else "no process"
        sys.stdout.write(f"{node.name}: {agent}\n")
        for rank in node.ranks:
            row = last_row(folder, rank.rank)
            step = f"step {row['step']}" if row else "no step yet"
            sys.stdout.write(f"  {rank.name}: pid {rank.process.pid}, {step}\n")
    sys.stdout.write(f"{job.restarts} restarts of the ranks\n{folder}\n")

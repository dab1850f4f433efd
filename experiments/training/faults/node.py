"""A node that is lost with all its ranks, as by a power cut: no process of it says goodbye."""

from __future__ import annotations

import signal
from pathlib import Path

from experiments.faults.fault import PLATFORM, Fault, Verification
from experiments.faults.replica import DEATH_TIMEOUT_S
from experiments.lab.control import process_from_json, process_to_json
from experiments.training.faults.targets import (
    capture_some,
    recheck_targets,
    send_to,
    subject_of,
    undo_in_job,
)
from experiments.training.job_folder import read_job
from probes.child import wait_until
from probes.json_types import JsonObject


def capture_node(folder: Path, *, name: str, seed: int) -> JsonObject:
    """Choose one node by name or by seed; return the state before, with the node's ranks.

    Raises:
        FaultRefused: there is no such node, or it is the only one.
        TargetError: no job runs there.
    """
    job = read_job(folder)
    there = {node.name: node.agent for node in job.nodes if node.is_training and node.agent is not None}
    captured = capture_some(job, there, name=name, count=1, seed=seed)
    hit = {str(victim["name"]) for victim in captured["victims"]}
    ranks = [rank for rank in job.ranks if rank.node in hit]
    return captured | {"ranks": [{"name": rank.name} | process_to_json(rank.process) for rank in ranks]}


def lose_node(captured: JsonObject) -> None:
    """Kill the agent and its ranks, the agent first: it must not see them die."""
    send_to(captured["victims"], signal.SIGKILL)
    for rank in captured["ranks"]:
        process_from_json(rank).send(signal.SIGKILL)  # the kernel may have been faster


def verify_loss(captured: JsonObject) -> Verification:
    """See that agent and ranks are gone."""
    named = [process_from_json(row) for row in (*captured["victims"], *captured["ranks"])]
    wait_until(lambda: not any(p.is_alive for p in named), timeout_s=DEATH_TIMEOUT_S, interval_s=0.01)
    alive = [process.pid for process in named if process.is_alive]
    state = f"{alive} still run" if alive else f"agent and {len(named) - 1} ranks are gone"
    return Verification(is_verified=not alive, observed=f"{subject_of(captured)}: {state}")


LOSE = Fault(
    name="node.lose",
    fidelity="P",
    ends_by=PLATFORM,
    subject=subject_of,
    recheck=recheck_targets,
    inject=lose_node,
    verify=verify_loss,
    undo=lambda captured: undo_in_job(captured, lambda: ""),
    risk="low",
    needs=("a training job of `overproof lab train up` with two nodes or more",),
    covers=("host-down",),
    heals="torchrun goes on with the nodes that are left; the job's supervisor replaces the lost one",
)

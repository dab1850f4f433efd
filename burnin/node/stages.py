"""What a worker runs in each stage: the table from a stage's name to the code that does it."""

from __future__ import annotations

from dataclasses import dataclass

from burnin.node.allreduce import run_allreduce
from burnin.node.bandwidth import run_bandwidth
from burnin.node.bench import Bench
from burnin.node.group import Group
from burnin.node.links import run_links
from burnin.node.matmul import run_matmul
from burnin.node.memory import run_memory
from burnin.node.order import PHASE_OFFSET
from burnin.node.power import run_power
from probes.json_types import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One round of one stage, as the agent commands it."""

    stage: str
    phase: str
    length_s: float
    options: JsonObject
    group: Group | None  # None: nothing is exchanged with other devices
    cycle: int | None = None  # None: the stages are not repeated

    @classmethod
    def from_command(cls, command: JsonObject) -> Task:
        """Read the agent's command."""
        group = command.get("group")
        return cls(
            stage=str(command["stage"]),
            phase=str(command["phase"]),
            length_s=float(command["length_s"]),
            options=command["options"],
            group=Group(**(group | {"devices": tuple(group["devices"])})) if group else None,
            cycle=command.get("cycle"),
        )


def run_stage(bench: Bench, task: Task) -> None:
    """Do what the task says on this device."""
    length_s, options = task.length_s, task.options
    if task.stage == "memory":
        run_memory(bench, length_s=length_s, options=options)
    elif task.stage == "matmul":
        run_matmul(bench, length_s=length_s, options=options, phase=task.phase)
    elif task.stage == "bandwidth":
        run_bandwidth(bench, length_s=length_s, phase=task.phase)
    elif task.stage == "power":
        run_power(bench, length_s=length_s, phase_offset_s=options.get(PHASE_OFFSET))
    else:
        assert task.group is not None, f"{task.stage} takes a group"
        if task.stage == "links":
            run_links(bench, length_s=length_s, group=task.group, phase=task.phase)
        else:
            run_allreduce(bench, length_s=length_s, options=options, group=task.group)

"""A training step over the whole fleet: started like a trial of the network, followed step by step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from burnin.fleet.network.trial import Trial, TrialResult
from burnin.fleet.network.trial_run import TrialRunner
from probes.event import Event
from probes.json_types import JsonObject

DESIGN = "training"
TRAINING = "training"  # the event that tells what came of the stage


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What the fleet is to train; without a command our own small transformer."""

    steps: int = 6
    sharding: str | None = None  # "ddp" or "fsdp"; None: fsdp on GPUs, ddp on CPUs
    command: tuple[str, ...] = ()  # the user's own, started by torchrun on every host, once for each GPU
    step_regex: str = r"step[ =:]+(\d+)"  # its first group is the number of a step, in a line of the command
    loss_regex: str | None = r"loss[ =:]+([-+.\deE]+|nan|inf)"

    @classmethod
    def from_json(cls, data: JsonObject) -> TrainingPlan:
        """Read it back from plain values."""
        return cls(**(data | {"command": tuple(data["command"])}))

    def to_order(self) -> JsonObject:
        """Return what the hosts are told."""
        return asdict(self) | {"command": list(self.command)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What came of it: rows for the series ``train``, what each host said of its set-up, the trial itself."""

    result: TrialResult
    rows: tuple[JsonObject, ...] = ()
    setups: Mapping[str, JsonObject] = field(default_factory=dict)  # host -> its set-up

    def to_event(self) -> JsonObject:
        """Return what goes on the timeline, for judging."""
        return {
            "hosts": list(self.result.trial.hosts),
            "state": self.result.state,
            "blamed": list(self.result.blamed),
            "detail": self.result.detail,
            "seconds": self.result.seconds,
            "transport": self.result.transport,
            "setups": dict(self.setups),
        }


def run_training_stage(runner: TrialRunner, hosts: Sequence[str], plan: TrainingPlan) -> TrainingResult:
    """Train over all hosts at once; each step of each rank is one row."""
    rows: list[JsonObject] = []
    setups: dict[str, JsonObject] = {}

    def hear(trial: Trial, host: str, event: Event) -> None:
        if event.kind == "train.step":
            rows.append({"t_ns": event.t_ns, "host": host, **event.data})
        elif event.kind == "train.setup":
            before = setups.get(host, event.data)
            setups[host] = event.data if before["is_deterministic"] else before
        if runner.on_event is not None:
            runner.on_event(trial, host, event)

    settings = replace(runner.settings, training=plan.to_order())
    trial = Trial(id=f"train-{time.time_ns():x}", round=0, design=DESIGN, hosts=tuple(hosts), collectives=())
    result = replace(runner, settings=settings, on_event=hear).run_one(trial)
    return TrainingResult(result=result, rows=tuple(rows), setups=setups)

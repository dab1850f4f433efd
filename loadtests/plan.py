"""What the controller hands to its load process: a file in the run folder, which holds no secret."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.prompts import WordScale
from loadtests.workload import Workload, WorkloadSpec
from probes.errors import ConfigError
from reports.record import write_atomically

PLAN_FILE = "load.json"
PLAN_VARIABLE = "OVERPROOF_LOAD_PLAN"  # names the file for the load process
# Exit code of a load process that could no longer write its rows.
EXIT_RECORD = 3

# Events of the load process on the run's timeline.
READY = "load.ready"  # the positive controls are done
STARTED = "load.started"  # t0_ns: the moment the schedule counts from
ARRIVALS_ENDED = "load.arrivals_ended"
ENDED = "load.ended"  # every request has its row
GUARD = "load.guard"  # nothing more is sent: a guard of the workload wants it
SPENT = "load.spent"  # what this worker's requests cost
IDLE_ENDED = "load.idle_ended"  # the checked tasks have been asked before the load
IDLE_ANSWERS = "idle-answers"  # the series of their answers


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One run's load."""

    run: Path
    spec: WorkloadSpec
    seed: int
    url: str
    model: str
    words: WordScale = field(default_factory=WordScale)  # how many words make a token, at this endpoint
    tokens_sent: int = 0  # before the load, on account of its budget
    tokens_received: int = 0

    @property
    def workload(self) -> Workload:
        """The workload as the rest of the code takes it."""
        return self.spec.to_workload()


def write_plan(plan: LoadPlan) -> Path:
    """Write the plan into its run folder and return the file."""
    path = plan.run / PLAN_FILE
    document = {
        "run": str(plan.run.resolve()),
        "spec": plan.spec.model_dump(mode="json"),
        "seed": plan.seed,
        "url": plan.url,
        "model": plan.model,
        "tokens_sent": plan.tokens_sent,
        "tokens_received": plan.tokens_received,
        "words": {
            "tokens_per_word": plan.words.tokens_per_word,
            "tokens_extra": plan.words.tokens_extra,
        },
    }
    write_atomically(path, json.dumps(document))
    return path


def load_plan(path: Path) -> LoadPlan:
    """Read a plan back.

    Raises:
        ConfigError: it is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return LoadPlan(
            run=Path(data["run"]),
            spec=WorkloadSpec.model_validate(data["spec"]),
            seed=data["seed"],
            url=data["url"],
            model=data["model"],
            words=WordScale(**data["words"]),
            tokens_sent=data.get("tokens_sent", 0),
            tokens_received=data.get("tokens_received", 0),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a load plan: {error}") from error

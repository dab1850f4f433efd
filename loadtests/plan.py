"""What the controller hands to its load process: a file in the run folder, which holds no secret."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from loadtests.calibration.certified import EVENT as CALIBRATED
from loadtests.processes.crew import Crew
from loadtests.spec.endpoint import NamedEndpoint
from loadtests.spec.workload import Workload, WorkloadSpec
from loadtests.traffic.prompts import WordScale
from probes.errors import ConfigError
from probes.json_types import JsonObject
from reports.record import write_atomically

PLAN_FILE = "load.json"
PLAN_VARIABLE = "OVERPROOF_LOAD_PLAN"  # names the file for the load process
NUMBER_VARIABLE = "OVERPROOF_LOAD_WORKER"  # which of the crew's workers a process of this machine is
JOIN_VARIABLE = "OVERPROOF_LOAD_JOIN"  # for a worker whose plan comes from a master: what its user allows
# Exit code of a load process that could no longer write its rows.
EXIT_RECORD = 3
EXIT_TARGET = 5  # of one that lost its master, or of a master whose workers did not come

# Events of the load process on the run's timeline.
READY = "load.ready"  # the positive controls are done
STARTED = "load.started"  # t0_ns: the moment the schedule counts from
ARRIVALS_ENDED = "load.arrivals_ended"
ENDED = "load.ended"  # every request has its row
CREW = "load.crew"  # how many load processes there are to be
MERGED = "load.merged"  # what the reports of all workers add up to
JOINED = "load.worker_joined"
CLOCK_READ = "load.worker_clock"  # how far a worker's clock was ahead of the master's
REFUSED = "load.worker_refused"
LOST = "load.worker_lost"
CAME_BACK = "load.worker_came_back"
COLLECTED = "load.worker_collected"  # its rows are in this record
GUARD = "load.guard"  # nothing more is sent: a guard of the workload wants it
SPENT = "load.spent"  # what this worker's requests cost
ENDPOINT_LOST = "endpoint.lost"  # this worker's client sends it nothing more, but a question now and then
ENDPOINT_BACK = "endpoint.back"  # it has answered one
IDLE_ENDED = "load.idle_ended"  # the checked tasks have been asked before the load
IDLE_ANSWERS = "idle-answers"  # the series of their answers

# What a worker may put on the timeline of a master elsewhere.
OF_WORKERS = frozenset(
    (READY, CALIBRATED, STARTED, ARRIVALS_ENDED, ENDED, GUARD, SPENT, ENDPOINT_LOST, ENDPOINT_BACK)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """An endpoint as it was found before the load."""

    endpoint: NamedEndpoint
    url: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One run's load."""

    run: Path
    spec: WorkloadSpec
    seed: int
    url: str
    model: str
    words: WordScale = field(default_factory=WordScale)  # how many words make a token, at this endpoint
    crew: Crew = field(default_factory=Crew)
    tokens_sent: int = 0  # before the load, on account of its budget
    tokens_received: int = 0
    others: tuple[tuple[str, str], ...] = ()  # address and model of each endpoint after the first

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """Each endpoint of the workload, in its order."""
        found = ((self.url, self.model), *self.others)
        return tuple(
            Destination(endpoint=endpoint, url=url, model=model)
            for endpoint, (url, model) in zip(self.spec.named_endpoints, found, strict=True)
        )

    @property
    def workload(self) -> Workload:
        """The workload as the rest of the code takes it."""
        return self.spec.to_workload()


def write_plan(plan: LoadPlan) -> Path:
    """Write the plan into its run folder and return the file."""
    path = plan.run / PLAN_FILE
    write_atomically(path, json.dumps({"run": str(plan.run.resolve())} | plan_to_json(plan)))
    return path


def plan_to_json(plan: LoadPlan) -> JsonObject:
    """Return the plan as it may travel: it names where keys are, and holds none."""
    return {
        "spec": plan.spec.model_dump(mode="json"),
        "seed": plan.seed,
        "url": plan.url,
        "model": plan.model,
        "others": [list(other) for other in plan.others],
        "tokens_sent": plan.tokens_sent,
        "tokens_received": plan.tokens_received,
        "words": {
            "tokens_per_word": plan.words.tokens_per_word,
            "tokens_extra": plan.words.tokens_extra,
        },
        "crew": asdict(plan.crew),
    }


def plan_from_json(data: JsonObject, *, run: Path) -> LoadPlan:
    """Read a plan back, for a record at ``run``.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return LoadPlan(
            run=run,
            spec=WorkloadSpec.model_validate(data["spec"]),
            seed=data["seed"],
            url=data["url"],
            model=data["model"],
            words=WordScale(**data["words"]),
            tokens_sent=data.get("tokens_sent", 0),
            tokens_received=data.get("tokens_received", 0),
            crew=Crew(**data["crew"]),
            others=tuple((str(url), str(model)) for url, model in data.get("others", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"not a load plan: {error}") from error


def load_plan(path: Path) -> LoadPlan:
    """Read a plan file.

    Raises:
        ConfigError: it is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return plan_from_json(data, run=Path(data["run"]))
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise ConfigError(f"{path}: not a load plan: {error}") from error

"""The folder of a training job, from outside: what runs, where it writes, how to stop it.

``job.json`` names the job's processes by pid and start time and is rewritten as a whole at each change. Each
rank appends one row a step to ``progress/rank-N.ndjson``; the steps count on from the checkpoint after a
resume, so a step that occurs twice was lost. ``resumes.ndjson`` has one row for each start of the ranks: the
checkpoint that it took and those it passed over. ``checkpoints/step-N/`` is whole or not there; ``job.log``
has the processes' words.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from experiments.lab.control import Process, end_processes, process_from_json
from probes.errors import TargetError
from probes.json_types import JsonObject
from reports.run import read_ndjson

JOB_FILE = "job.json"
LOG_FILE = "job.log"
PROGRESS_FOLDER = "progress"
CHECKPOINTS_FOLDER = "checkpoints"
RESUMES_FILE = "resumes.ndjson"
STORAGE_SOCKET = "storage.sock"
FOLDER_NAME = "train"  # under --out


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank as the supervisor sees it."""

    rank: int
    node: str
    process: Process

    @property
    def name(self) -> str:
        """What it is called in records."""
        return f"rank-{self.rank}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One torchrun agent and its ranks."""

    name: str
    agent: Process | None  # None: there is none at the moment
    ranks: tuple[Rank, ...]

    @property
    def is_training(self) -> bool:
        """Whether its agent lives and has ranks."""
        return self.agent is not None and self.agent.is_alive and bool(self.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a training job's supervisor wrote last."""

    folder: Path
    supervisor: Process
    is_restarting: bool  # what dies is started again
    checkpoint_every_steps: int | None  # None: it makes none
    world: int  # ranks that there are when every node is there
    restarts: int  # of the group of ranks
    nodes: tuple[Node, ...]
    storage: Process | None
    clocks: JsonObject  # seconds that rule what heals when

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Every rank that lives, in order."""
        found = [rank for node in self.nodes for rank in node.ranks if rank.process.is_alive]
        return tuple(sorted(found, key=lambda rank: rank.rank))

    def node(self, name: str) -> Node | None:
        """Return the node of this name; None: there is none."""
        return next((node for node in self.nodes if node.name == name), None)


def read_job(folder: Path) -> Job:
    """Read what the job of a folder last said of itself.

    Raises:
        TargetError: none runs there.
    """
    state = read_state(folder)
    if state is None or not process_from_json(state["supervisor"]).is_alive:
        raise TargetError(f"training job {folder}: none runs; `overproof lab train up` starts one")
    return job_from_json(folder, state)


def job_from_json(folder: Path, state: JsonObject) -> Job:
    """Read a state document."""
    return Job(
        folder=folder,
        supervisor=process_from_json(state["supervisor"]),
        is_restarting=bool(state["is_restarting"]),
        checkpoint_every_steps=state["checkpoint_every_steps"],
        world=int(state["world"]),
        restarts=int(state["restarts"]),
        nodes=tuple(_node_from_json(row) for row in state["nodes"]),
        storage=_process(state["storage"]),
        clocks=state["clocks"],
    )


def _node_from_json(row: JsonObject) -> Node:
    name = str(row["name"])
    ranks = (Rank(rank=int(one["rank"]), node=name, process=process_from_json(one)) for one in row["ranks"])
    return Node(name=name, agent=_process(row["agent"]), ranks=tuple(ranks))


def _process(row: JsonObject | None) -> Process | None:
    return None if row is None else process_from_json(row)


def read_state(folder: Path) -> JsonObject | None:
    """Return the job's last state as it was written; None: there is none, or it cannot be read."""
    try:
        state = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def is_job_alive(folder: Path) -> bool:
    """Say whether the supervisor that the folder names still runs."""
    state = read_state(folder)
    return state is not None and process_from_json(state["supervisor"]).is_alive


def start_what_is_dead(job: Job) -> None:
    """Have the supervisor start, at once, whatever of its job does not run."""
    job.supervisor.send(signal.SIGUSR1)


def stop_job(folder: Path, *, timeout_s: float = 10.0) -> list[int]:
    """Stop every process that the folder names, also after a crash; return the pids that had to be stopped.

    Raises:
        TargetError: one could not be ended.
    """
    state = read_state(folder)
    named = [] if state is None else _processes(state)
    stopped = end_processes(named, subject=f"training job {folder}", timeout_s=timeout_s)
    (folder / JOB_FILE).unlink(missing_ok=True)
    return stopped


def _processes(state: JsonObject) -> list[Process]:
    agents = [node["agent"] for node in state["nodes"]]
    ranks = [rank for node in state["nodes"] for rank in node["ranks"]]
    rows = [state["supervisor"], state["storage"], state["rendezvous"], *agents, *ranks]
    return [process_from_json(row) for row in rows if row is not None]


def progress_file(folder: Path, rank: int) -> Path:
    """Return where a rank writes its steps."""
    return folder / PROGRESS_FOLDER / f"rank-{rank}.ndjson"


def last_row(folder: Path, rank: int) -> JsonObject | None:
    """Return a rank's last whole step, without reading what came long before; None: it has made none."""
    try:
        with progress_file(folder, rank).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    whole = lines[:-1]  # what follows the last line end is being written
    return json.loads(whole[-1]) if whole else None


def read_resumes(folder: Path) -> list[JsonObject]:
    """Return one row for each start of the ranks, the first included."""
    return list(read_ndjson(folder / RESUMES_FILE))


def trains_in_full(folder: Path, *, since_ns: int = 0) -> bool:
    """Say whether every rank of the job is there and its own process has made a step, since then."""
    try:
        job = read_job(folder)
    except TargetError:
        return False
    rows = [(rank, last_row(folder, rank.rank)) for rank in job.ranks]
    return len(rows) == job.world and all(
        row is not None
        and row["pid"] == rank.process.pid
        and row["world"] == job.world
        and int(row["t_ns"]) > since_ns
        for rank, row in rows
    )

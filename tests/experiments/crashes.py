"""One cell of the crash matrix: a game day, a signal at a named point, and what is left of it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.injecting.bounds import PLAN_FILE
from experiments.injecting.crash_points import FIRED_FILE, POINTS
from experiments.injecting.crash_points import VARIABLE as CRASH_VARIABLE
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import read_ledger
from experiments.judging import judge_run
from experiments.lab.control import Lab, read_lab, stop_lab
from experiments.lab.supervisor import LabPlan, all_serve, start_detached
from experiments.processes.doctor import find_leftovers
from probes.child import process_state, wait_until
from probes.finding import verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import count_unreadable, load_run
from tests.processes import start_job

CATALOGUE = Path(__file__).parents[2] / "experiments/catalogue"
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
FAULTS = {
    "kill": ("kill_replica", {}),
    "hang": ("hang_replica", {}),
    "error": ("answer_with_errors", {"for_s": 60}),
}
SEED = 2026
SAMPLE_SHARE = 0.1
END_TIMEOUT_S = 240.0  # on a machine that others keep busy
GONE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Which signal goes to whom, where, and with which fault."""

    signal: str
    whom: str  # controller, chaos or load
    point: str
    fault: str

    @property
    def name(self) -> str:
        """Return the cell's name."""
        return f"{self.signal} {self.whom} {self.point} {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What one cell left."""

    cell: Cell
    was_reached: bool  # the signal was sent
    exit_status: int
    undone: int  # entries that ``gameday undo`` still had to undo
    problems: tuple[str, ...]  # none: all is as it was


def all_cells() -> list[Cell]:
    """Return the whole matrix; the load child needs traffic, and knows no step from within: fewer cells."""
    faults = {"controller": FAULTS, "chaos": FAULTS, "load": ["hang"]}
    after = [point for point in POINTS if point.endswith(".after")]
    return [
        Cell(signal=signal, whom=whom, point=point, fault=fault)
        for whom in ("controller", "chaos", "load")
        for point in (after if whom == "load" else POINTS)
        for fault in faults[whom]
        for signal in SIGNALS
    ]


def sampled_cells(seed: int = SEED) -> list[Cell]:
    """Return a tenth of the matrix, chosen by seed."""
    cells = all_cells()
    return random.Random(seed).sample(cells, round(len(cells) * SAMPLE_SHARE))


@contextmanager
def staying_lab(folder: Path) -> Iterator[Path]:
    """A lab as ``lab up`` leaves it, that heals a death at once and no hanging."""
    lab = folder / "runs/lab"
    start_detached(LabPlan(folder=lab, backoff_s=0.1, load_s=0.1, liveness_s=0), timeout_s=30)
    supervisor = read_lab(lab).supervisor
    try:
        yield folder
    finally:
        stop_lab(lab)
        os.waitpid(supervisor.pid, 0)


def write_cell(cell: Cell, folder: Path) -> list[str]:
    """Write the cell's experiment; return the command that runs it."""
    func, arguments = FAULTS[cell.fault]
    document = yaml.safe_load((CATALOGUE / "local/replica-kill.yaml").read_text())
    action = {"type": "python", "module": "experiments.actions", "func": func, "arguments": arguments}
    del document["steady-state-hypothesis"]
    document["method"] = [{"type": "action", "name": "break", "timeout": 15, "provider": action}]
    if cell.whom == "load":
        document["extensions"][0] |= {
            "workload": "workload.yaml", "steady_s": 1, "recovery_s": 5, "after_s": 1,
        }  # fmt: skip
        workload = yaml.safe_load((CATALOGUE / "workloads/steady-chat.yaml").read_text())
        (folder / "workload.yaml").write_text(yaml.safe_dump(workload))
    else:
        del document["extensions"]
    path = folder / f"{cell.whom}-{cell.fault}.yaml"
    path.write_text(yaml.safe_dump(document))
    return ["gameday", "run", path.name]


def run_cell(cell: Cell, folder: Path) -> Aftermath:
    """Run one cell on the lab under ``folder``; ``latest`` names its run."""
    lab_folder = folder / "runs/lab"
    before = state_of(read_lab(lab_folder))
    job = start_job(
        write_cell(cell, folder),
        folder,
        env={CRASH_VARIABLE: f"{cell.point}:{cell.signal}:{cell.whom}"},
        is_patient=True,
    )
    status = job.wait(timeout_s=END_TIMEOUT_S)
    problems = []
    if not wait_until(lambda: not job.descendants(), timeout_s=GONE_TIMEOUT_S, interval_s=0.1):
        problems.append(f"still running: {job.descendants()}")
    run = (folder / "runs/latest").resolve()
    undone = undo_pending(run, by="gameday undo")
    wait_until(lambda: all_serve(lab_folder), timeout_s=20)
    after = state_of(read_lab(lab_folder))
    problems += [] if after == before else [f"the lab was {before}, is {after}"]
    problems += _problems_of(run, folder)
    return Aftermath(
        cell=cell,
        was_reached=(run / FIRED_FILE).exists(),
        exit_status=status,
        undone=len(undone),
        problems=tuple(problems),
    )


def _problems_of(run: Path, folder: Path) -> Iterator[str]:
    """Look at the record: readable, nothing pending, and never a PASS."""
    if left := [entry.id for entry in read_ledger(run) if entry.is_pending]:
        yield f"still pending: {left}"
    if undo_pending(run, by="again"):
        yield "undoing again found something"
    if found := [left for left in find_leftovers(folder / "runs") if str(folder) in str(left)]:
        yield f"the doctor finds {found}"
    recorded = load_run(run)
    if (
        recorded.state == "running"
        or count_unreadable(run / "events.ndjson")
        or not (run / PLAN_FILE).exists()
    ):
        yield f"the record is {recorded.state}, or has lines that cannot be read"
    if verdict(judge_run(recorded)) is Outcome.PASS:
        yield "the record is judged PASS"


def state_of(lab: Lab) -> JsonObject:
    """Return what has to be as it was; the process of a killed replica is another one, rightly."""
    return {
        "trouble": lab.trouble,
        "replicas": [
            {
                "name": replica.name,
                "is_serving": replica.is_serving,
                "is_draining": replica.is_draining,
                "spoiled_by": replica.spoiled_by,
                "runs_with": replica.runs_with,
                "is_stopped": replica.pid is not None and process_state(replica.pid) == "T",
            }
            for replica in lab.replicas
        ],
    }

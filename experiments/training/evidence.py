"""What the record of a game day says of its training job."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.impact.recovery import FaultSeen, Times
from experiments.training.expectations import Expectations
from experiments.training.moments import find_training_times
from probes.json_types import JsonObject
from probes.training_ettr import checkpoint_every
from probes.training_progress import Progress, find_progress
from probes.training_step import Step, step_from_json
from reports.run import Run
from reports.table import read_series

STEPS_SERIES = "training"
GPU_SERIES = "training_gpu"
READY = "training.ready"
RESUMED = "training.resumed"  # the job's own word: the checkpoint that it took, and those it passed over
CHECKPOINTS = "training.checkpoints"  # what lay on the disk at the end
NODES = "training.nodes"
PHASES = ("before", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSeen:
    """All that the rules of a training job read."""

    subject: str
    expected: Expectations
    rows: tuple[Step, ...]
    progress: Progress
    start_ns: int
    end_ns: int
    is_lab: bool
    checkpoint_every: int | None  # None: nobody says
    makes_checkpoints: bool | None  # None: nobody says
    resumes: tuple[JsonObject, ...]  # what the job said of each beginning; empty: not the lab's
    checkpoints: JsonObject | None  # at the end; None: nobody looked
    nodes: tuple[JsonObject, ...]  # agents as they were seen, in order of time
    used_pct: tuple[tuple[int, float], ...]  # samples of the GPUs
    why_unread: str
    faults: tuple[FaultSeen, ...]
    times: Times | None  # None: nothing was injected

    def phase(self, name: str) -> tuple[int, int] | None:
        """Return the start and end of ``before`` or ``after``; None: there was none."""
        if name == "before":
            return self.start_ns, self.end_ns if self.times is None else self.times.t_inject_ns
        back_ns = None if self.times is None else self.times.t_back_ns
        return None if back_ns is None else (back_ns, self.end_ns)


def read_training(run: Run, faults: tuple[FaultSeen, ...]) -> TrainingSeen | None:
    """Read the evidence; None: this game day is about no training job."""
    spec = run.header.spec.get("training")
    if not isinstance(spec, dict):
        return None
    found = (step_from_json(row) for row in read_series(run, STEPS_SERIES))
    rows = tuple(sorted((row for row in found if row is not None), key=lambda row: row.t_ns))
    start_ns, end_ns = _span(run, rows)
    ready = next((event.data for event in run.events_of(READY)), {})
    every = ready.get("checkpoint_every_steps")
    is_lab = bool(ready.get("is_lab"))
    safe = any(row.checkpoint_step is not None for row in rows)
    return TrainingSeen(
        subject=f"job:{ready.get('name', 'training')}",
        expected=Expectations(**spec),
        rows=rows,
        progress=find_progress(rows),
        start_ns=start_ns,
        end_ns=end_ns,
        is_lab=is_lab,
        checkpoint_every=every if isinstance(every, int) else checkpoint_every(rows),
        makes_checkpoints=(every is not None) if is_lab else True if safe else None,
        resumes=tuple(event.data for event in run.events_of(RESUMED)),
        checkpoints=next((event.data for event in run.events_of(CHECKPOINTS)), None),
        nodes=tuple(event.data for event in run.events_of(NODES)),
        used_pct=tuple((int(r["t_ns"]), float(r["utilisation_pct"])) for r in read_series(run, GPU_SERIES)),
        why_unread=str(ready.get("why_unread", "")),
        faults=faults,
        times=find_training_times(rows, faults=faults, end_ns=end_ns) if faults else None,
    )


def _span(run: Run, rows: tuple[Step, ...]) -> tuple[int, int]:
    """Return from when until when the job was watched."""
    began = [e.t_ns for e in run.events_of("phase.started") if e.data.get("phase") == "before"]
    ended = [event.t_ns for event in run.events_of("phase.ended")]
    first, last = (rows[0].t_ns, rows[-1].t_ns) if rows else (0, 0)
    return (began[0] if began else first), (max(ended) if ended else last + 1)

"""Watches a training job while a game day runs: its steps, its launchers, its checkpoints, its GPUs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from experiments.impact.recovery import FaultSeen, Times
from experiments.training.checkpoint import checkpoint_folder, read_checkpoint, saved_steps
from experiments.training.evidence import CHECKPOINTS, GPU_SERIES, NODES, READY, RESUMED, STEPS_SERIES
from experiments.training.expectations import Expectations
from experiments.training.job_folder import CHECKPOINTS_FOLDER, Job, read_resumes, read_state
from experiments.training.job_spec import WatchedJob
from experiments.training.moments import find_training_times
from probes.errors import RecordError, TargetError
from probes.event import Event
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.training_input import find_feed, judge_input
from probes.training_log import JobLog, JobReader
from probes.training_progress import Progress, find_hang, find_progress
from probes.training_step import Step, step_to_json
from probes.training_utilisation import Utilisation
from reports.record import RunWriter

EVERY_S = 0.2
GPU_EVERY_S = 0.5


def watch_lab_job(job: Job, expected: Expectations, writer: RunWriter) -> TrainingWatch:
    """Watch a job of the lab, which trains on the processor."""
    writer.event(
        "controller",
        READY,
        name=job.folder.name,
        log=str(job.folder),
        is_lab=True,
        checkpoint_every_steps=job.checkpoint_every_steps,
        world=job.world,
        clocks=job.clocks,
        why_unread="it trains on no GPU",
    )
    log = JobLog(path=job.folder, keys={}, pattern=None)
    return TrainingWatch(log, expected, writer, gpus=None, is_lab=True)


def watch_job(name: str, job: WatchedJob, expected: Expectations, writer: RunWriter) -> TrainingWatch:
    """Watch a job of the user's own, by its log and, where they are in this machine, its GPUs."""
    gpus = None if job.gpus is None else Utilisation(job.gpus or None)
    why_unread = "the target names no GPU of this machine" if gpus is None else gpus.why_unread
    writer.event("controller", READY, name=name, log=str(job.log.path), is_lab=False, why_unread=why_unread)
    return TrainingWatch(job.log, expected, writer, gpus=gpus, is_lab=False)


class TrainingWatch:
    """Reads in threads of its own, from ``start`` to ``stop``; what is seen is recorded as it is."""

    def __init__(
        self,
        log: JobLog,
        expected: Expectations,
        writer: RunWriter,
        *,
        gpus: Utilisation | None,
        is_lab: bool,
    ) -> None:
        self.folder = log.path  # where the job is to be found, by actions and probes
        self._log = log
        self._expected = expected
        self._writer = writer
        self._gpus = gpus
        self._is_lab = is_lab
        self._leaving = threading.Event()
        readers: list[Callable[[], None]] = [self._read_steps] + ([self._read_gpus] if gpus else [])
        self._threads = [threading.Thread(target=read, name="training", daemon=True) for read in readers]
        self._rows: list[Step] = []  # appended to by one thread; readers take a copy
        self._resumes = 0
        self._agents: JsonObject = {}
        self.since_ns = 0
        self.error: RecordError | None = None  # what ended the watching, for the main thread to raise

    def start(self) -> None:
        """Begin."""
        self.since_ns = time.time_ns()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; NVML can block for ever on a dying GPU, and is not waited for."""
        self._leaving.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2)

    def progress(self) -> Progress:
        """Return what was seen so far."""
        return find_progress(list(self._rows))

    def times(self, faults: Sequence[FaultSeen]) -> Times | None:
        """Derive the faults' moments as judging will; None: nothing was injected."""
        if not faults:
            return None
        return find_training_times(list(self._rows), faults=faults, end_ns=time.time_ns())

    def is_steady(self) -> bool:
        """Say whether the job makes new steps, has made enough of them, and does not hang."""
        progress, now_ns = self.progress(), time.time_ns()
        if progress.between(self.since_ns, now_ns).new_steps < self._expected.steady_steps:
            return False
        latest = progress.between(now_ns - 2_000_000_000, now_ns).steps
        return bool(latest) and all(s.is_new for s in latest) and find_hang(progress, now_ns=now_ns) is None

    def starving(self) -> str:
        """Say how the job starves; empty: it does not, or nobody knows."""
        rows = [row for row in self._rows if row.t_ns >= self.since_ns]
        if find_progress(rows).new_steps < self._expected.steady_steps:
            return ""
        feed = find_feed(rows, [])
        found = judge_input(feed, subject="job", wait_share_max=self._expected.wait_share_max)
        return found.observed if found.outcome is Outcome.FAIL else ""

    def has_steps_since(self, t_ns: int) -> bool:
        """Say whether the job has made as many steps since a moment as a phase has to show."""
        return self.progress().between(t_ns, time.time_ns()).new_steps >= self._expected.steady_steps

    def note_checkpoints(self) -> None:
        """Put on record which of the lab's checkpoints are whole now."""
        if not self._is_lab:
            return
        folder = self._log.path / CHECKPOINTS_FOLDER
        whole: list[int] = []
        spoiled: list[int] = []
        for step in saved_steps(folder):
            why = read_checkpoint(checkpoint_folder(folder, step))[1]
            (spoiled if why else whole).append(step)
        self._writer.event("controller", CHECKPOINTS, whole=whole, spoiled=spoiled)

    # The threads.

    def _read_steps(self) -> None:
        reader: JobReader | None = None
        is_silent = False
        while not self._leaving.wait(EVERY_S):
            try:
                reader = reader or JobReader(self._log)
                self._note(reader.read())
                if self._is_lab:
                    self._note_lab()
                is_silent = False
            except TargetError as error:
                if not is_silent and not self._leaving.is_set():
                    self._writer.event("controller", "training.silent", reason=str(error))
                is_silent = True
            except RecordError as error:
                self.error = error
                return

    def _note(self, rows: Sequence[Step]) -> None:
        """Keep what came since we watch: a job may have run for weeks."""
        for row in (row for row in rows if row.t_ns >= self.since_ns):
            self._writer.sample(STEPS_SERIES, {"subject": f"rank:{row.rank}"} | step_to_json(row))
            self._rows.append(row)

    def _note_lab(self) -> None:
        state = read_state(self._log.path)
        if state is not None:
            agents = {
                n["name"]: n["agent"] and [n["agent"]["pid"], n["agent"]["start_time"]]
                for n in state["nodes"]
            }
            if agents != self._agents:
                self._agents = agents
                self._writer.event("controller", NODES, agents=agents)
        resumes = read_resumes(self._log.path)
        for row in (row for row in resumes[self._resumes :] if int(row["t_ns"]) >= self.since_ns):
            host = self._writer.header.host
            event = Event(t_ns=int(row["t_ns"]), host=host, source="controller", kind=RESUMED, data=row)
            self._writer.append_event(event)
        self._resumes = len(resumes)

    def _read_gpus(self) -> None:
        assert self._gpus is not None
        while not self._leaving.wait(GPU_EVERY_S):
            t_ns = time.time_ns()
            try:
                for uuid, pct in self._gpus.read().items():
                    row = {"t_ns": t_ns, "subject": f"gpu:{uuid}", "utilisation_pct": pct}
                    self._writer.sample(GPU_SERIES, row)
            except RecordError as error:
                self.error = error
                return

"""What every part of a game day shares: experiment, record and progress, and what has to be ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from experiments.chaos.run_context import RUN_VARIABLE, SEED_VARIABLE
from experiments.experiment import Experiment
from experiments.injecting.permission import LOCK_FILE
from probes.child import end_child
from probes.errors import ConfigError, TargetError
from probes.event import Event
from reports.live import Progress
from reports.record import RunWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class LabChoice:
    """How to start a lab where none runs."""

    is_restarting: bool = True
    seed: int = 1
    has_checkpoints: bool = True  # of a training job


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One game day."""

    experiment: Experiment
    writer: RunWriter
    out: Path
    progress: Progress
    lab: LabChoice
    plan_hash: str  # empty: nobody has confirmed a plan
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # ends all that was begun

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return self.writer.path.resolve()

    @property
    def seed(self) -> int:
        """The seed of every choice."""
        return self.writer.header.seed

    def event(self, kind: str, **data: object) -> None:
        """Put something on the timeline."""
        self.writer.event("controller", kind, **data)

    def event_at(self, t_ns: int, kind: str, **data: object) -> None:
        """Put something on the timeline that was found out a little later."""
        event = Event(t_ns=t_ns, host=self.writer.header.host, source="controller", kind=kind, data=data)
        self.writer.append_event(event)

    def marked(self) -> dict[str, str]:
        """Return the environment of our children: by it `gameday doctor` knows whose they are."""
        return os.environ | {RUN_VARIABLE: str(self.folder), SEED_VARIABLE: str(self.seed)}

    def ends(self, name: str, child: subprocess.Popen[str]) -> None:
        """Have a child ended with the day."""

        def stop() -> None:
            if not end_child(child):
                raise TargetError(f"{name}: process {child.pid} does not end even by SIGKILL; look at it")

        self.stack.callback(stop)

    def take(self, folder: Path) -> None:
        """Keep a second game day off a target; the lock goes with our process."""
        descriptor = os.open(folder / LOCK_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"target {folder}: another game day runs on it; wait for its end") from error

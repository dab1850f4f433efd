"""Chaos Toolkit's child as the controller sees it: started, watched, and ended whatever it does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from experiments.chaos.child import JOURNAL_FILE, LEAVE_TIMEOUT_S
from experiments.experiment import Experiment
from probes.child import end_child, python_module, start_child, wait_until
from probes.errors import TargetError
from reports.run import load_run

HEARD_TIMEOUT_S = 5.0  # from a signal to the first rollback
STUCK_AFTER_S = 3.0  # beyond an activity's deadline: code that hears no signal


class ChaosProcess:
    """One child of one game day."""

    def __init__(self, experiment: Experiment, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        command = python_module(
            "experiments.chaos.child", "--experiment", str(experiment.path), "--run", str(folder)
        )
        with (folder / "chaos.log").open("w") as log:
            self.child: subprocess.Popen[str] = start_child(command, stdout=log, stderr=log, env=env)

    @property
    def exit_status(self) -> int | None:
        """How it ended; None: it runs."""
        return self.child.poll()

    def stuck_activity(self) -> str:
        """Name an activity far beyond its deadline, as one in C code that hears no signal; empty: none."""
        run = load_run(self._folder)
        ended = [event.data["name"] for event in run.events_of("chaos.activity.completed")]
        for event in run.events_of("chaos.activity.started"):
            name = event.data["name"]
            if name in ended:
                ended.remove(name)
            elif time.time_ns() - event.t_ns > (event.data["limit_s"] + STUCK_AFTER_S) * 1e9:
                return str(name)
        return ""

    def was_cut_short(self) -> bool:
        """Say whether a child that has ended did so before it had carried out its experiment."""
        try:
            journal = json.loads((self._folder / JOURNAL_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return True
        return self.child.poll() != 0 or bool(journal.get("stopped_by"))

    def end(self, *, heard_within_s: float = HEARD_TIMEOUT_S) -> bool:
        """Stop it: its rollbacks get their time where they begin at once; then undoing is the controller's.

        Returns whether it left by itself.

        Raises:
            TargetError: it does not end even by SIGKILL.
        """
        is_left = self.child.poll() is not None
        if not is_left:
            self.child.terminate()
            wait_until(self._has_heard, timeout_s=heard_within_s)
            if self._has_heard():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.child.wait(timeout=LEAVE_TIMEOUT_S)
            is_left = self.child.poll() is not None
        self.kill()
        return is_left

    def _has_heard(self) -> bool:
        rolls_back = bool(load_run(self._folder).events_of("chaos.rollbacks.started"))
        return rolls_back or self.child.poll() is not None

    def kill(self) -> None:
        """End it and whatever is in its group, now.

        Raises:
            TargetError: it does not end even by SIGKILL.
        """
        if not end_child(self.child, grace_s=0.0 if self.child.poll() is None else 5.0):
            raise TargetError(f"chaos: process {self.child.pid} does not end even by SIGKILL; look at it")

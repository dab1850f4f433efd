"""The load test of a game day as a child: started, watched, and asked to come to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from experiments.evidence import LOAD_FOLDER
from experiments.experiment import Experiment
from probes.child import python_module, start_child
from probes.errors import ConfigError, SuiteError, TargetError

START_TIMEOUT_S = 60.0  # imports, calibration and the first answer, on a busy machine
END_TIMEOUT_S = 60.0  # requests under way, sealing and judging
EXTRA_S = 90.0  # longer than everything that is planned: the load never ends first


def start_load(
    experiment: Experiment, folder: Path, *, url: str, seed: int, env: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start the experiment's load; it outlasts all that the experiment may take."""
    longest_s = experiment.steady_s + experiment.chaos_deadline_s + experiment.recovery_s
    longest_s += experiment.after_s + EXTRA_S
    longest_s += 0.0 if experiment.alerts is None else experiment.alerts.within_s
    command = python_module(
        "overproof", "load", "run", str(experiment.workload), "--endpoint", url,
        "--duration-s", f"{longest_s:.0f}", "--seed", str(seed),
        "--json", "--path", str(folder / LOAD_FOLDER), "--in-gameday", "--lifeline",
    )  # fmt: skip
    with (folder / "load.log").open("w") as log:
        return start_child(command, stdout=log, stderr=subprocess.STDOUT, env=env)


def end_of_load(load: subprocess.Popen[str], folder: Path) -> SuiteError | None:
    """Return why a load has ended before its time; None: it runs."""
    status = load.poll()
    if status is None:
        return None
    said = (folder / "load.log").read_text(errors="replace").strip().splitlines() or [""]
    error = ConfigError if status == 2 else TargetError
    return error(f"load: ended before its time (exit {status}): {said[-1][:300] or 'it said nothing'}")


def finish_load(load: subprocess.Popen[str]) -> int | None:
    """Have a load drain and judge itself; return its exit status, None: it did not come to its end."""
    os.kill(load.pid, signal.SIGUSR1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        load.wait(timeout=END_TIMEOUT_S)
    return load.poll()

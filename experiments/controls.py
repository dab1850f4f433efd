"""A control for plain ``chaos run``: it adds load, our timeline and our verdict to any experiment.

In an experiment file::

    controls:
      - name: overproof
        provider:
          type: python
          module: experiments.controls
          arguments: {workload: workload.yaml}

Promises are those of the workload, or of an ``overproof`` extension, as for ``overproof gameday run``. Chaos
Toolkit exits 0 for much that is no success; the control therefore marks its journal as deviated where our
verdict is FAIL, and as failed where it is undecided, so that it exits 1. Signals and time-outs stay as Chaos
Toolkit has them; who wants ours runs the same file by ``overproof gameday run``.
"""

from __future__ import annotations

import os
from pathlib import Path

from chaoslib.exceptions import InterruptExecution

from experiments.actions import RUN_VARIABLE
from experiments.chaos.controlled_run import ControlledRun
from probes.errors import SuiteError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.terminal import print_result

# Chaos Toolkit knows controls as modules, and runs one experiment in a process.
_registries: list[object] = []
_runs: list[ControlledRun] = []


def configure_control(event_registry: object, **arguments: object) -> None:
    """Keep where handlers of events are registered; it is given out only here."""
    del arguments
    _registries.append(event_registry)


def before_experiment_control(
    context: JsonObject,
    workload: str = "",
    folder: str = ".",
    endpoint: str = "",
    out: str = "runs",
    seed: int = 1,
) -> None:
    """Start record and load, and wait for traffic; where that fails, nothing is carried out.

    ``folder`` is that of the experiment's file: Chaos Toolkit does not say where it lies, and paths in the
    extension are relative to it.
    """
    if RUN_VARIABLE in os.environ:
        return  # a game day of ours runs this file, and does all of it
    try:
        run = ControlledRun(
            context,
            workload=Path(workload) if workload else None,
            folder=Path(folder),
            endpoint=endpoint,
            out=Path(out),
            seed=int(seed),
        )
        _runs.append(run)
        run.begin(_registries[-1])
    except (SuiteError, OSError, LookupError) as error:  # whatever else is raised here, Chaos Toolkit drops
        raise InterruptExecution(f"overproof: {error}; nothing is carried out") from error


def after_experiment_control(context: JsonObject, state: JsonObject, **arguments: object) -> None:
    """End the load, judge the record, print the verdict, and let Chaos Toolkit's exit code say it too."""
    del context, arguments
    while _runs:
        recorded = _runs.pop().end(state)
        print_result(recorded, as_json=False)
        state["overproof"] = {"outcome": recorded.outcome.value, "run": str(recorded.path)}
        if recorded.outcome is Outcome.FAIL:
            state["deviated"] = True
        elif recorded.outcome is not Outcome.PASS and state["status"] == "completed":
            state["status"] = "failed"


def cleanup_control() -> None:
    """End what is left where Chaos Toolkit did not come to the end of the experiment."""
    while _runs:
        _runs.pop().abandon()

"""The probes of guards in a process of their own: ``python -m experiments.guards.probes``.

One row in ``series/guard.ndjson`` per look. A probe that hangs leaves no row, which the controller takes for
what it is: a guard that cannot see.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from chaoslib.activity import run_activity
from chaoslib.configuration import load_configuration
from chaoslib.exceptions import ChaosException
from chaoslib.hypothesis import within_tolerance
from chaoslib.secret import load_secrets

from experiments.experiment import load_experiment
from experiments.guards.guard import SERIES, Guard
from probes.child import watch_lifeline
from probes.event import to_json_line
from probes.json_types import JsonObject
from reports.record import SERIES_FOLDER, open_for_append, write_whole

OBSERVED_KEPT = 300  # characters of what a probe said


def _on_alarm(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TimeoutError("no answer in time")


def look(guard: Guard, configuration: JsonObject, secrets: JsonObject) -> JsonObject:
    """Ask one probe; ``is_met`` is None where it broke or took too long."""
    assert guard.probe is not None
    row: JsonObject = {"subject": f"guard:{guard.name}", "is_met": None}
    signal.setitimer(signal.ITIMER_REAL, guard.timeout_s)
    try:
        value = run_activity(guard.probe, configuration, secrets)
        row["is_met"] = bool(within_tolerance(guard.probe["tolerance"], value, configuration, secrets))
        row["observed"] = json.dumps(value, default=str)[:OBSERVED_KEPT]
    except (ChaosException, TimeoutError) as error:
        row["observed"] = f"{type(error).__name__}: {error}"[:OBSERVED_KEPT]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"t_ns": time.time_ns()} | row


def main() -> int:
    """Look with every probe at its own pace until the parent is gone."""
    parser = argparse.ArgumentParser(prog="experiments.guards.probes")
    parser.add_argument("--experiment", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    given = parser.parse_args()
    watch_lifeline(lambda: os._exit(0))
    signal.signal(signal.SIGALRM, _on_alarm)
    experiment = load_experiment(given.experiment)
    configuration = load_configuration(experiment.document.get("configuration") or {})
    secrets = load_secrets(experiment.document.get("secrets") or {}, configuration)
    path = given.run / SERIES_FOLDER / f"{SERIES}.ndjson"
    descriptor = open_for_append(path)
    due = {guard.name: 0.0 for guard in experiment.guards if guard.probe is not None}
    while True:
        for guard in experiment.guards:
            if guard.probe is not None and time.monotonic() >= due[guard.name]:
                due[guard.name] = time.monotonic() + guard.every_s
                write_whole(descriptor, to_json_line(look(guard, configuration, secrets)).encode(), path)
        time.sleep(max(0.01, min(due.values()) - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())

"""What the real sampler says of a machine with the twin of NVML, taken down once and kept for other tests."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from probes.event import SAMPLE, Event, event_from_line
from tests.twins.machine import Machine, build_driver

ROWS_MIN = 2
WITHIN_S = 40.0


@functools.cache
def _folder() -> Path:
    """Return the folder of all drivers and machines; it goes when the tests end."""
    folder = tempfile.mkdtemp(prefix="overproof-captured-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@functools.cache
def _library(age: int) -> Path:
    folder = _folder() / f"driver-{age}"
    folder.mkdir()
    return build_driver(folder, age)


@functools.cache
def capture(model: str = "H100", age: int = 580, gpus: int = 8, faults: tuple[str, ...] = ()) -> list[Event]:
    """Run the sampler on a machine for about two seconds and return all that it said."""
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    machine = Machine(folder=folder, library=_library(age), model=model, age=age, gpus=gpus)
    machine.write(*faults)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "burnin.node.sampler"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | machine.environment(),
        text=True,
        bufsize=1,
    ) as sampler:
        watchdog = threading.Timer(WITHIN_S, sampler.kill)
        watchdog.start()
        try:
            return _listen(sampler, gpus)
        finally:
            watchdog.cancel()
            sampler.kill()


def _listen(sampler: subprocess.Popen[str], gpus: int) -> list[Event]:
    assert sampler.stdin is not None
    assert sampler.stdout is not None
    sampler.stdin.write("{}\n")
    events: list[Event] = []
    rows: dict[str, int] = {}
    is_asked, after = False, 0
    while after < gpus:
        line = sampler.stdout.readline()
        assert line, f"the sampler ended; it had said {[e.kind for e in events]}"
        event = event_from_line(line)
        events.append(event)
        if event.kind == SAMPLE and event.source == "gpu":
            rows[event.data["gpu"]] = rows.get(event.data["gpu"], 0) + 1
        after += event.kind == "gpu.snapshot" and event.data["when"] == "after"
        if not is_asked and len(rows) == gpus and min(rows.values()) >= ROWS_MIN:
            sampler.stdin.write(json.dumps({"snapshot": "after"}) + "\n")
            is_asked = True
    return events

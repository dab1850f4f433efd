"""What sampling eight GPUs costs: the sampler's CPU time, with a twin of the driver that answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figure import Figure, median_of
from tests.twins.machine import Machine, build_driver

_GPUS = 8
_SETTLED_S, _MEASURED_S, _REPEATS = 3.0, 10.0, 3


def figures() -> Iterator[Figure]:
    """Yield the share of one core that the sampler takes."""
    with tempfile.TemporaryDirectory() as folder:
        library = build_driver(Path(folder) / "driver", 580)
        machine = Machine(folder=Path(folder), library=library, gpus=_GPUS)
        machine.write()
        share = median_of(lambda: _share_of_a_core(machine), repeats=_REPEATS)
    yield Figure(
        name=f"sampler, {_GPUS} GPUs, 3 readings at 10 Hz, 7 at 1 Hz",
        median=100 * share,
        unit="% of one core",
        repeats=_REPEATS,
        beside="at most 1 % wanted; the driver's own time is not in it",
    )


def _share_of_a_core(machine: Machine) -> float:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "burnin.node.sampler"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | machine.environment(),
        text=True,
    )
    assert process.stdin is not None
    try:
        process.stdin.write("{}\n")
        process.stdin.flush()
        time.sleep(_SETTLED_S)
        began, cpu_s = time.monotonic(), _cpu_s(process.pid)
        time.sleep(_MEASURED_S)
        return (_cpu_s(process.pid) - cpu_s) / (time.monotonic() - began)
    finally:
        process.stdin.close()
        process.kill()
        process.wait(timeout=10)


def _cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, as the scheduler counts it."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats) / 1e9

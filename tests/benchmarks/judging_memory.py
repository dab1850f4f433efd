"""What judging, reporting and measuring a long load takes in one process, of rows that nobody sent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figure import Figure
from tests.loadtests.test_judging_memory import judged, made_run

COUNTS = (2_000, 100_000, 300_000, 1_000_000)


def figures() -> Iterator[Figure]:
    """Yield the largest size of the process, and its time, for growing numbers of requests."""
    for count in COUNTS:
        with tempfile.TemporaryDirectory(prefix="overproof-judging-") as folder:
            peak_mib, said = judged(made_run(Path(folder), count))
        yield Figure(
            name=f"{count} requests, at most",
            median=peak_mib,
            unit="MiB",
            repeats=1,
            beside=f"{said['seconds']:.0f} s",
        )

"""One measured figure, with what it is compared to."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The median of several repeats of one measurement."""

    name: str
    median: float
    unit: str
    repeats: int
    beside: str = ""  # what a user would use instead, and its figure from the same run


def median_of(measure: Callable[[], float], *, repeats: int) -> float:
    """Return the median of repeated measurements, after one that is not counted."""
    measure()
    return statistics.median(measure() for _ in range(repeats))


def seconds_of(command: Sequence[str]) -> float:
    """Return how long a command takes from start to end, in seconds; it has to succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return time.perf_counter() - started

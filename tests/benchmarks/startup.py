"""How long until the command line answers."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figure import Figure, median_of, seconds_of

_SCRIPTS = Path(sysconfig.get_path("scripts"))
_REPEATS = 7


def figures() -> Iterator[Figure]:
    """Yield start-up times beside those of the tools that the suite builds on."""
    ours = {
        command: median_of(
            lambda c=command: seconds_of([str(_SCRIPTS / "overproof"), *c.split()]), repeats=_REPEATS
        )
        for command in ("--help", "load --help", "gameday --help", "burnin --help")
    }
    theirs = {
        name: median_of(lambda n=name: seconds_of([str(_SCRIPTS / n), "--help"]), repeats=_REPEATS)
        for name in ("locust", "chaos")
    }
    beside = ", ".join(f"{name} --help {seconds * 1000:.0f} ms" for name, seconds in theirs.items())
    for command, seconds in ours.items():
        yield Figure(
            name=f"overproof {command}", median=seconds * 1000, unit="ms", repeats=_REPEATS, beside=beside
        )

"""Turns one worker's rows into Parquet by the master's clock, in a process of its own, which may block."""

from __future__ import annotations

import sys
from pathlib import Path

from loadtests.processes.parts import KINDS, part_path
from probes.errors import RecordError
from reports.request_table import shift_times
from reports.table import seal


def seal_parts(folder: Path, *, worker: int, clock_ahead_ns: int) -> None:
    """Seal the rows of one worker.

    Raises:
        RecordError: the disk is full, or a line cannot be read.
    """
    lost = seal(folder)
    if lost:
        raise RecordError(f"{folder}: lines of the record cannot be read: {lost}")
    for kind in KINDS:
        shift_times(part_path(folder, kind, worker), by_ns=-clock_ahead_ns)


if __name__ == "__main__":
    try:
        seal_parts(Path(sys.argv[1]), worker=int(sys.argv[2]), clock_ahead_ns=int(sys.argv[3]))
    except RecordError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)

"""The files that a workload names: checked before anything is touched, noted so that a judge can count."""

from __future__ import annotations

import hashlib
from pathlib import Path

from loadtests.spec.workload import Workload
from loadtests.traffic.arrivals import schedule
from loadtests.traffic.prompts import Prompts
from probes.errors import ConfigError
from probes.json_types import JsonObject

EVENT = "load.inputs"


def check_inputs(workload: Workload, *, seed: int) -> JsonObject:
    """Return what stands in the record of a workload's files: names, digests, and a trace's arrivals.

    Raises:
        ConfigError: one cannot be read; the message names file and line.
    """
    Prompts(workload.prompts, seed=seed).close()
    paths = [path for kind in workload.prompts for path in (kind.file, kind.pairs_file) if path is not None]
    data: JsonObject = {}
    if workload.arrivals.trace is not None:
        paths.append(workload.arrivals.trace.path)
        data["arrivals"] = sum(
            1 for _ in schedule(workload.arrivals, duration_s=workload.duration_s, seed=seed)
        )
        if not data["arrivals"]:
            raise ConfigError(f"{workload.arrivals.trace.path}: no request in this window and duration")
    return data | {"files": {str(path): _digest(path) for path in paths}}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error

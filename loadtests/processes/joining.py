"""``overproof load worker``: load processes of this machine for a master on another one."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from loadtests import plan as plans
from loadtests.processes.load_processes import clean_environment, raise_for, start_locust
from probes.child import end_child
from probes.errors import ConfigError

_POLL_S = 0.2


def run_workers(*, master: str, port: int, processes: int, out: Path, allowed_envs: list[str]) -> None:
    """Run workers until the master sends them away.

    Raises:
        ConfigError, TargetError, RecordError: as one of them has said.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error
    said = json.dumps({"out": str(out.resolve()), "envs": allowed_envs})
    environment = clean_environment() | {plans.JOIN_VARIABLE: said}
    environment.pop(plans.PLAN_VARIABLE, None)
    environment.pop(plans.NUMBER_VARIABLE, None)
    logs = [out / f"worker-{time.time_ns()}-{number}.log" for number in range(processes)]
    options = ("--worker", "--master-host", master, "--master-port", str(port))
    children: list[subprocess.Popen[str]] = []
    try:
        children += [start_locust(log, *options, environment=environment) for log in logs]
        while any(child.poll() is None for child in children):
            time.sleep(_POLL_S)
    finally:
        for child in children:
            end_child(child)
    for child, log in zip(children, logs, strict=True):
        raise_for(child.returncode, log)
    for log in logs:
        log.unlink()

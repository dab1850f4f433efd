"""The processes of one load on this machine: Locust alone, or its master with the workers that run here."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from loadtests import plan as plans
from loadtests.plan import LoadPlan
from loadtests.processes.crew import LISTEN_DEFAULT
from probes.child import end_child, python_module, signal_group, start_child
from probes.errors import ConfigError, RecordError, TargetError
from reports.record import RunWriter

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# What a user may write for "on every address".
_EVERYBODY = ("0.0.0.0", "::", "*")  # noqa: S104


@dataclass(slots=True)
class LoadProcesses:
    """What runs here; ``leader`` is the process whose end is the load's."""

    leader: subprocess.Popen[str]
    leader_log: Path
    workers: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    logs: dict[int, Path] = field(default_factory=dict)

    def check(self) -> None:
        """Raise what ended the load before its time.

        Raises:
            RecordError, ConfigError, TargetError: as the process has said.
        """
        raise_for(self.leader.returncode, self.leader_log)

    def check_workers(self, *, has_started: bool) -> None:
        """Raise where a worker's end is the load's: it cannot write, or it has gone before the start.

        Raises:
            RecordError, ConfigError, TargetError: as the process has said.
        """
        for number, worker in self.workers.items():
            code = worker.poll()
            if code == plans.EXIT_RECORD or (code is not None and not has_started):
                raise_for(code, self.logs[number])
                raise TargetError(f"worker {number}: ended (exit {code}) before the load began")


def raise_for(code: int | None, log: Path) -> None:
    """Raise what a load process has ended with; nothing for a good end, or one that the record shows."""
    if code == plans.EXIT_RECORD:
        raise RecordError(last_line(log))
    if code == plans.EXIT_TARGET:
        raise TargetError(last_line(log))
    if code == 2:
        raise ConfigError(last_line(log))


@contextlib.contextmanager
def load_processes(plan: LoadPlan, plan_file: Path, writer: RunWriter) -> Iterator[LoadProcesses]:
    """Run them for as long as the block; afterwards none is left."""
    children: list[subprocess.Popen[str]] = []
    crew = plan.crew

    def start(log: Path, *options: str, number: int | None = None) -> subprocess.Popen[str]:
        child = start_locust(log, *options, environment=_environment(plan_file, number))
        children.append(child)
        return child

    leader_log = plan.run / "locust.log"
    try:
        if crew.is_alone:
            yield LoadProcesses(start(leader_log, "--users", "1", "--spawn-rate", "1"), leader_log)
            return
        if not crew.joining:
            crew = replace(crew, port=_free_port())
        address = ("--master-bind-host", crew.listen, "--master-bind-port", str(crew.port))
        users = ("--users", str(crew.workers), "--expect-workers", str(crew.workers))
        processes = LoadProcesses(start(leader_log, "--master", *address, *users), leader_log)
        host = LISTEN_DEFAULT if crew.listen in _EVERYBODY else crew.listen
        for number in range(crew.processes):
            log = processes.logs[number] = plan.run / f"locust-worker-{number}.log"
            master = ("--worker", "--master-host", host, "--master-port", str(crew.port))
            processes.workers[number] = start(log, *master, number=number)
        yield processes
    finally:
        _end_all(children, writer)


def start_locust(log: Path, *options: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start Locust on our locustfile; what it says goes to ``log``."""
    locustfile = PACKAGE_ROOT / "loadtests" / "locustfile.py"
    said = ("--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0")
    with log.open("w") as file:
        return start_child(
            python_module("locust", "--locustfile", str(locustfile), "--headless", *options, *said),
            stdout=file,
            stderr=file,
            env=environment,
            cwd=PACKAGE_ROOT,  # Locust puts its working folder first on the import path
        )


def clean_environment() -> dict[str, str]:
    """Return our environment without what Locust would take for its own options."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}


def _environment(plan_file: Path, number: int | None) -> dict[str, str]:
    ours = clean_environment() | {plans.PLAN_VARIABLE: str(plan_file.resolve())}
    return ours if number is None else ours | {plans.NUMBER_VARIABLE: str(number)}


def _end_all(children: list[subprocess.Popen[str]], writer: RunWriter) -> None:
    """End all at the same time, not one after the other: each may need seconds to write its last rows."""
    for child in reversed(children):  # workers first, so that the master hears of their end
        if child.poll() is None:
            signal_group(child.pid, signal.SIGTERM)
    for child in children:
        is_gone = end_child(child)
        writer.event("load", "load.process_ended", pid=child.pid, code=child.returncode, is_gone=is_gone)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((LISTEN_DEFAULT, 0))
        return int(sock.getsockname()[1])


def last_line(path: Path) -> str:
    """Return the last that a load process has said."""
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("overproof load: ") if lines else f"{path}: the load process said nothing"

"""The lab from outside: find it, ask it, stop it.

A lab is a folder: ``state.json`` names its processes by pid and start time, ``control.sock`` answers one JSON
object per connection, ``lab.log`` keeps what its processes said.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from probes.child import is_alive, process_start_time, wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject

STATE_FILE = "state.json"
SOCKET_FILE = "control.sock"
LOG_FILE = "lab.log"
FOLDER_NAME = "lab"  # under --out
ASK_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process for good: pids are used again, start times with them are not."""

    pid: int
    start_time: int | None  # clock ticks since boot; None: it was gone before we could look

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return is_alive(self.pid, self.start_time)

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process, never another that has its pid by now; return whether it was there."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor holds the process; what it names can no longer change between look and signal.
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica as the lab describes it."""

    name: str
    process: Process | None  # None: there is none at the moment
    is_serving: bool  # its process lives and the gateway sends it requests
    restarts: int
    in_flight: int = 0
    is_draining: bool = False  # finishes what it has and gets nothing new
    spoiled_by: tuple[str, ...] = ()  # arguments added on purpose, for its next start
    runs_with: tuple[str, ...] = ()  # those that its process has

    @property
    def pid(self) -> int | None:
        """The pid, where there is a process."""
        return self.process.pid if self.process else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What a running lab said of itself."""

    folder: Path
    supervisor: Process
    url: str
    is_restarting: bool  # it restarts replicas that die
    replicas: tuple[Replica, ...]
    trouble: JsonObject | None = None  # at the gateway, on purpose
    step_work_ms: float = 0.0  # of its processor that a replica spends on each step

    @property
    def serving(self) -> list[Replica]:
        """The replicas that answer requests now."""
        return [replica for replica in self.replicas if replica.is_serving]

    def replica(self, name: str) -> Replica | None:
        """Return the replica of this name; None: there is none."""
        return next((replica for replica in self.replicas if replica.name == name), None)


def read_lab(folder: Path) -> Lab:
    """Ask the lab of a folder how it is.

    Raises:
        TargetError: no lab runs there, or it does not answer.
    """
    return lab_from_json(folder, ask_lab(folder, {"do": "status"}))


def start_replica(folder: Path, name: str) -> None:
    """Have the lab start a replica that is dead; one that lives is left alone."""
    ask_lab(folder, {"do": "start", "replica": name})


def lab_from_json(folder: Path, status: JsonObject) -> Lab:
    """Read a status document."""
    return Lab(
        folder=folder,
        supervisor=process_from_json(status["supervisor"]),
        url=str(status["url"]),
        is_restarting=bool(status["is_restarting"]),
        replicas=tuple(_replica_from_json(row) for row in status["replicas"]),
        trouble=status["trouble"],
        step_work_ms=float(status.get("step_work_ms", 0.0)),
    )


def process_from_json(row: JsonObject) -> Process:
    """Read back what names a process."""
    return Process(pid=int(row["pid"]), start_time=row["start_time"])


def process_to_json(process: Process) -> JsonObject:
    """Return what names a process as plain JSON."""
    return {"pid": process.pid, "start_time": process.start_time}


def _replica_from_json(row: JsonObject) -> Replica:
    return Replica(
        name=str(row["name"]),
        process=process_from_json(row) if row["pid"] is not None else None,
        is_serving=bool(row["is_serving"]),
        restarts=int(row["restarts"]),
        in_flight=int(row["in_flight"]),
        is_draining=bool(row["is_draining"]),
        spoiled_by=tuple(row["spoiled_by"]),
        runs_with=tuple(row["runs_with"]),
    )


def this_process() -> Process:
    """Return this process."""
    return Process(pid=os.getpid(), start_time=process_start_time(os.getpid()))


def ask_lab(folder: Path, request: JsonObject, *, timeout_s: float = ASK_TIMEOUT_S) -> JsonObject:
    """Send one request to the lab's control socket and return the answer.

    Raises:
        TargetError: nobody answers, or the lab refuses.
    """
    try:
        with socket_path(folder) as path, socket.socket(socket.AF_UNIX) as link:
            link.settimeout(timeout_s)
            link.connect(path)
            link.sendall(json.dumps(request).encode() + b"\n")
            with link.makefile("rb") as file:
                answer = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise TargetError(
            f"lab {folder}: does not answer ({error}); `overproof lab up` starts one, `lab status` looks"
        ) from error
    if not isinstance(answer, dict) or "error" in answer:
        raise TargetError(f"lab {folder}: refused {request.get('do')!r}: {answer['error']}")
    return answer


@contextlib.contextmanager
def socket_path(folder: Path, name: str = SOCKET_FILE) -> Iterator[str]:
    """Give a short path to a folder's socket: an address holds 107 bytes, a run folder may be longer."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def read_state(folder: Path) -> JsonObject | None:
    """Return the lab's last state as it was written; None: there is none, or it cannot be read."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def is_lab_alive(folder: Path) -> bool:
    """Say whether the supervisor that the folder names still runs."""
    state = read_state(folder)
    return state is not None and process_from_json(state["supervisor"]).is_alive


def stop_lab(folder: Path, *, timeout_s: float = 10.0) -> list[int]:
    """Stop every process that the folder names, also after a crash; return the pids that had to be stopped.

    Raises:
        TargetError: one could not be ended.
    """
    state = read_state(folder)
    processes = [] if state is None else [state["supervisor"], *_living(state["replicas"])]
    named = [process_from_json(row) for row in processes]
    stopped = end_processes(named, subject=f"lab {folder}", timeout_s=timeout_s)
    for path in (folder / STATE_FILE, folder / SOCKET_FILE):
        if path.exists():
            path.unlink(missing_ok=True)
    return stopped


def end_processes(named: list[Process], *, subject: str, timeout_s: float) -> list[int]:
    """End these very processes, the first of which ends the others in order; return those that ran.

    Raises:
        TargetError: one could not be ended.
    """
    stopped = [process.pid for process in named if process.is_alive]
    if named and named[0].send(signal.SIGTERM):
        wait_until(lambda: not any(process.is_alive for process in named), timeout_s=timeout_s)
    for process in named:
        process.send(signal.SIGKILL)
    if not wait_until(lambda: not any(process.is_alive for process in named), timeout_s=timeout_s):
        left = [process.pid for process in named if process.is_alive]
        raise TargetError(f"{subject}: processes {left} do not end even by SIGKILL; look at them")
    return stopped


def _living(rows: list[JsonObject]) -> list[JsonObject]:
    return [row for row in rows if row["pid"] is not None]

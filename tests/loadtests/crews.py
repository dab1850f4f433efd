"""Load runs of several processes, as their users start them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from probes.child import wait_until
from probes.event import Event
from reports.run import load_run

COMMAND = [sys.executable, "-P", "-m", "overproof", "load"]
WORKLOAD = """
name: crew
arrivals: {{kind: poisson, rate_per_s: {rate}}}
duration_s: {duration}
prompt:
  input_tokens: {{kind: constant, value: 16}}
  output_tokens: {{kind: constant, value: 8}}
endpoint: {{timeout_s: 5{endpoint}}}
calibration: {{is_skipped: true}}
failed_share_max: 0.2
slos: []
"""


def write_workload(folder: Path, *, rate: float, duration: float, endpoint: str = "") -> Path:
    path = folder / "workload.yaml"
    path.write_text(WORKLOAD.format(rate=rate, duration=duration, endpoint=endpoint))
    return path


@dataclass
class Crew:
    """A run that is going on; what it says on standard error is in ``said``."""

    process: subprocess.Popen[str]
    path: Path
    said: str = field(default="")

    def events(self, kind: str) -> list[Event]:
        return load_run(self.path).events_of(kind) if (self.path / "run.json").exists() else []

    def has_rows(self, number: int, count: int = 1) -> bool:
        part = self.path / "requests" / f"worker-{number}.ndjson"
        return part.exists() and part.read_bytes().count(b"\n") >= count

    def wait(self, timeout_s: float = 40) -> int:
        self.said = self.process.communicate(timeout=timeout_s)[1]
        return self.process.returncode


def start(
    *arguments: str, path: Path, prefix: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> Crew:
    """Start ``overproof load`` with these arguments, with a standard input that stays open."""
    process = subprocess.Popen(
        [*prefix, *COMMAND, *arguments],
        env=None if env is None else os.environ | dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Crew(process, path)


def start_run(workload: Path, path: Path, *arguments: str, prefix: tuple[str, ...] = (), **env: str) -> Crew:
    return start("run", str(workload), "--path", str(path), *arguments, path=path, prefix=prefix, env=env)


def start_worker(port: int, path: Path, *arguments: str, prefix: tuple[str, ...] = (), **env: str) -> Crew:
    """Start a worker as another machine would have it: its rows go to a folder of its own."""
    host = () if "--master" in arguments else ("--master", "127.0.0.1")
    return start(
        "worker",
        *host,
        "--port",
        str(port),
        "--out",
        str(path),
        *arguments,
        path=path,
        prefix=prefix,
        env=env,
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def locusts_below(pid: int) -> dict[str, int]:
    """Return the load processes under a command: ``master``, or ``worker 0``, or ``alone``."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ppid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if ppid != pid or not any("locustfile" in word for word in words):
            continue
        number = next((v[22:].decode() for v in environment if v.startswith(b"OVERPROOF_LOAD_WORKER=")), "")
        role = "master" if "--master" in words else "worker" if "--worker" in words else "alone"
        found[f"{role} {number}".strip()] = int(folder.name)
    return found


def end(crew: Crew) -> None:
    """End what a failed test has left."""
    if crew.process.poll() is None:
        crew.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            crew.process.communicate(timeout=15)
    if crew.process.poll() is None:
        crew.process.kill()
        crew.process.communicate(timeout=5)


class Relay:
    """Carries everything between workers and a master, and keeps it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.carried = bytearray()
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                wait_until(self._is_there, timeout_s=30)
                far = socket.create_connection(("127.0.0.1", self._target))
                self._links += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)):
            return True
        return False

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.carried += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for sock in (self._listener, *self._links):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def relay(port: int) -> Iterator[Relay]:
    """Listen on a port of its own for as long as the block."""
    running = Relay(port)
    try:
        yield running
    finally:
        running.close()

"""The first process of a host of the cluster: starts its services, and again when they end.

``supervisor.py SERVICES.json``. A service stays down while the file ``NAME.stopped`` lies beside that list,
as after ``systemctl stop``. When the supervisor ends, the kernel ends all that its host runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

_PAUSE_S = 0.2
_RESTART_AFTER_S = 1.0
_KILL_AFTER_S = 5.0  # what was asked to end and did not is killed


class Service:
    """One program and whether it should run."""

    def __init__(self, folder: Path, name: str, command: list[str]) -> None:
        self.name, self.command = name, command
        self.log = folder / f"{name}.log"
        self.stopped = folder / f"{name}.stopped"
        self.pid: int | None = None
        self.start_at = 0.0
        self.kill_at: float | None = None  # None while nobody asked it to end

    def step(self, now: float) -> None:
        """Start it or ask it to end, whichever is due."""
        if self.stopped.exists():
            if self.pid is not None:
                self._end(self.pid, now)
        elif self.pid is None and now >= self.start_at:
            self._try_to_start(now)

    def has_ended(self, status: int, now: float) -> None:
        """Note that it ended, and when it is to start again."""
        self._note(f"{self.name} ended with {os.waitstatus_to_exitcode(status)}")
        self.pid, self.start_at, self.kill_at = None, now + _RESTART_AFTER_S, None

    def _end(self, pid: int, now: float) -> None:
        if self.kill_at is None:
            self.kill_at = now + _KILL_AFTER_S
            os.kill(pid, signal.SIGTERM)
        elif now >= self.kill_at:
            os.kill(pid, signal.SIGKILL)

    def _try_to_start(self, now: float) -> None:
        try:
            self._start()
        except OSError as error:
            self._note(f"{self.command[0]}: {error.strerror}")
            self.start_at = now + _RESTART_AFTER_S

    def _note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"supervisor: {text}\n")

    def _start(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self.log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        self.pid = os.posix_spawnp(
            self.command[0], self.command, os.environ, file_actions=actions, setsid=True
        )


def supervise(services: list[Service]) -> None:
    """Keep them running until the host is switched off, and reap whatever is orphaned."""
    while True:
        now = time.monotonic()
        _reap(services, now)
        for service in services:
            service.step(now)
        time.sleep(_PAUSE_S)


def _reap(services: list[Service], now: float) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for service in services:
            if service.pid == pid:
                service.has_ended(status, now)


def _main() -> None:
    path = Path(sys.argv[1])
    commands: dict[str, list[str]] = json.loads(path.read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    supervise([Service(path.parent, name, command) for name, command in commands.items()])


if __name__ == "__main__":
    _main()

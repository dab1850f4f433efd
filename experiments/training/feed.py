"""A rank's side of the storage: one batch for each step, however long that takes."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from experiments.lab.control import socket_path
from experiments.training.job_folder import STORAGE_SOCKET
from experiments.training.storage import BATCH_BYTES

_RETRY_S = 0.1


class NoData(Exception):
    """The storage gave nothing for too long."""


class Feed:
    """A connection to the storage that is made again when it breaks."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        self._folder, self._timeout_s = folder, timeout_s
        self._link: socket.socket | None = None

    def read_batch(self, step: int, rank: int) -> bytes:
        """Return the batch of a step.

        Raises:
            NoData: it did not come in time.
        """
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            try:
                return self._ask(f"{step} {rank}\n".encode(), deadline)
            except OSError:  # it is not there, or was cut off
                self._hang_up()
                time.sleep(_RETRY_S)
        raise NoData(f"storage gave no batch for {self._timeout_s:g} s")

    def _ask(self, line: bytes, deadline: float) -> bytes:
        if self._link is None:
            self._link = self._connect()
        self._link.settimeout(max(deadline - time.monotonic(), _RETRY_S))
        self._link.sendall(line)
        data = b""
        while len(data) < BATCH_BYTES:
            part = self._link.recv(BATCH_BYTES - len(data))
            if not part:
                raise ConnectionResetError("storage hung up")
            data += part
        return data

    def _connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(link.close)
            with socket_path(self._folder, STORAGE_SOCKET) as path:
                link.connect(path)
            on_failure.pop_all()
        return link

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

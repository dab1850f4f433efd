"""Watches the lab while a game day runs: one row per replica, ten times a second."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from experiments.impact.recovery import LAB_SERIES
from experiments.lab.control import ask_lab
from probes.errors import RecordError, TargetError
from reports.record import RunWriter

EVERY_S = 0.1


class LabSampler:
    """Samples in a thread of its own, from ``start`` to ``stop``."""

    def __init__(self, folder: Path, writer: RunWriter) -> None:
        self._folder = folder
        self._writer = writer
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-sampler", daemon=True)
        self.error: RecordError | None = None  # what ended the sampling, for the main thread to raise

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the sample under way."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        is_silent = False
        while not self._leaving.wait(EVERY_S):
            try:
                is_silent = self._sample(is_silent=is_silent)
            except RecordError as error:
                self.error = error
                return

    def _sample(self, *, is_silent: bool) -> bool:
        """Write one sample; return whether the lab was silent, which is noted once."""
        t_ns = time.time_ns()
        try:
            status = ask_lab(self._folder, {"do": "status"}, timeout_s=2.0)
        except TargetError as error:
            if not is_silent and not self._leaving.is_set():
                self._writer.event("controller", "lab.silent", reason=str(error))
            return True
        for row in status["replicas"]:
            sample = {"t_ns": t_ns, "subject": f"replica:{row['name']}"}
            sample |= {key: value for key, value in row.items() if key != "name"}
            self._writer.sample(LAB_SERIES, sample)
        return False

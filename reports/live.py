"""Live progress on standard error while a run is going on; the result itself goes to standard output."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """One row per step. ``with Progress("burn-in") as progress: progress.step("matmul", "running", "3 s")``."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.title = title
        self._quiet = quiet
        self._rows: dict[str, tuple[str, str]] = {}
        self._started = time.monotonic()

    def step(self, name: str, state: str, detail: str = "") -> None:
        """Set the row of a step; ``state`` is waiting, running, pass, inconclusive, fail or done."""
        changed = self._rows.get(name, ("", ""))[0] != state
        self._rows[name] = (state, detail)
        if changed and not self._quiet:
            sys.stderr.write(f"{time.monotonic() - self._started:6.1f} s  {name}: {state} {detail}\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace

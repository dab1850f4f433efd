"""How agent, worker and sampler speak: one event per line on standard output, whole or not at all."""

from __future__ import annotations

import os
import threading

from probes.event import SAMPLE, Event, event_to_line, now


class Speaker:
    """Owns the real standard output of a process.

    Whatever a library prints goes to standard error instead: it must never land between two of our lines.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self.cycle: int | None = (
            None  # of stages that are repeated; stands on all that we say until it changes
        )
        self._lock = threading.Lock()
        self._descriptor = os.dup(1)
        os.set_inheritable(self._descriptor, False)
        os.dup2(2, 1)

    def say(self, kind: str, **data: object) -> None:
        """Put an event on the line, now."""
        self.pass_on(now(self._source, kind, **self._in_cycle(data)))

    def sample(self, series: str, **row: object) -> None:
        """Put one row of a series on the line, now."""
        self.pass_on(now(series, SAMPLE, **self._in_cycle(row)))

    def _in_cycle(self, data: dict[str, object]) -> dict[str, object]:
        return data if self.cycle is None else data | {"cycle": self.cycle}

    def pass_on(self, event: Event) -> None:
        """Put an event on the line that perhaps another process made."""
        self.write(event_to_line(event))

    def write(self, line: str) -> None:
        """Write one whole line. When nobody reads any more there is nothing left to do here: leave."""
        rest = memoryview(line.encode())
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except BrokenPipeError:
                os._exit(1)

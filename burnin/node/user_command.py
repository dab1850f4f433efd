"""What the user's own training command prints: which line tells a step, and its loss."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from probes.json_types import JsonObject


@dataclass(slots=True)
class UserCommand:
    """Reads the lines of one command; a step's time is that between its line and the one before."""

    step_regex: str  # its first group is the step's number
    loss_regex: str | None = None  # its first group is the loss; None: no loss is printed
    _last: tuple[int, float] | None = None

    def read(self, line: str) -> JsonObject | None:
        """Return the step that a line tells, without its time where it is the first; None: it tells none."""
        step = re.search(self.step_regex, line)
        if step is None:
            return None
        number, now_s = int(step.group(1)), time.monotonic()
        before, self._last = self._last, (number, now_s)
        loss = re.search(self.loss_regex, line) if self.loss_regex else None
        told: JsonObject = {
            "phase": "command",
            "step": number,
            "loss": float(loss.group(1)) if loss else None,
        }
        if before is not None and number > before[0]:
            told["step_s"] = (now_s - before[1]) / (number - before[0])
        return told

"""The agent's line to its controller: as long as something comes, somebody is there who wants this.

A cut network gives no end of file, so silence ends the agent as well. Each line asks for our clock; the
answer carries when the question came and, as the time of the event, when it left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from burnin.node.speaker import Speaker
from probes.child import watch_lifeline

CLOCK = "clock"
ORDER_WITHIN_S = 20.0


def hold_lifeline(speaker: Speaker, leave: Callable[[], None], *, silence_s: float | None) -> None:
    """Call ``leave`` from a thread when the controller is gone; None: only the end of the line says so."""
    watch_lifeline(leave, silence_s=silence_s, on_line=lambda line: answer(speaker, line))


def answer(speaker: Speaker, line: bytes) -> None:
    """Say what our clock shows, to whoever asked for it."""
    heard_ns = time.time_ns()
    try:
        asked = json.loads(line)
    except ValueError:
        return  # a line that we do not know is a sign of life all the same
    if isinstance(asked, dict) and CLOCK in asked:
        speaker.say(CLOCK, asked_ns=asked[CLOCK], heard_ns=heard_ns)

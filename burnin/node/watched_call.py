"""Calls that may never return, each made by a thread that can be done without, and watched from another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(slots=True)
class Watch:
    """What one thread is waiting for just now."""

    subject: str  # of the calls: a GPU's UUID, or "nvml"
    call: str = ""  # empty: it waits for nothing
    since: float = 0.0
    is_told: bool = False  # that this call hangs

    def hangs(self, *, deadline_s: float) -> bool:
        """Say whether the present call has been out for too long and nobody has been told."""
        return not self.is_told and self.is_out(longer_s=deadline_s)

    def is_out(self, *, longer_s: float) -> bool:
        """Say whether the present call has not returned for longer than this."""
        return bool(self.call) and time.monotonic() - self.since > longer_s


def watched(watch: Watch, name: str, call: Callable[[], Result]) -> Result:
    """Make a call, known by name for as long as it lasts."""
    watch.call, watch.since, watch.is_told = name, time.monotonic(), False
    try:
        return call()
    finally:
        watch.call = ""


def start_thread(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that does not keep the process alive."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread

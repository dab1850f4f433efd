"""Steps of a worker: how far it is, told every second from a thread of its own.

What makes no step for too long has stalled, unless it waits for another device; only the agent decides.
"""

from __future__ import annotations

import threading
import time

from burnin.node.speaker import Speaker

PULSE = "pulse"  # consumed by the agent, never recorded
PULSE_EVERY_S = 1.0


class Pace:
    """Counts steps, and tells the agent."""

    def __init__(self, speaker: Speaker, device: str) -> None:
        self._speaker = speaker
        self._device = device
        self.steps = 0
        self.is_waiting = False  # for other devices
        self.is_inside = False  # a collective
        self.entered = 0  # collectives since this group met

    def step(self) -> None:
        """Note that one more piece of work is done."""
        self.steps += 1

    def enter(self) -> None:
        """Note that we go into a collective, and wait in it for others."""
        self.entered += 1
        self.is_waiting = self.is_inside = True

    def leave(self) -> None:
        """Note that the collective is over for us, or given up."""
        self.is_waiting = self.is_inside = False

    def start(self) -> None:
        """Tell the agent every second from now on."""
        threading.Thread(target=self._tell, name="pulse", daemon=True).start()

    def _tell(self) -> None:
        while True:
            self._speaker.say(
                PULSE,
                device=self._device,
                steps=self.steps,
                is_waiting=self.is_waiting,
                is_inside=self.is_inside,
                entered=self.entered,
            )
            time.sleep(PULSE_EVERY_S)

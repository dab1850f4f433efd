"""The bench: what a stage works with on one device."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from burnin.node.pace import Pace
from burnin.node.speaker import Speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a stage works with on one device."""

    device: str  # its name in the record
    kind: str
    torch_device: torch.device
    speaker: Speaker
    pace: Pace
    seed: int
    seeded: frozenset[str]  # kinds of fault that this device is to show in this stage
    only_controls: bool = False  # prove the stage's detectors and do nothing else

    def say_loaded(self, stage: str, *, loaded_s: float, checked_elements: int) -> None:
        """Say for how long this device was under load and how many elements were checked meanwhile."""
        self.speaker.say(
            "loaded", stage=stage, device=self.device, loaded_s=loaded_s, checked_elements=checked_elements
        )

    def act_dead(self) -> None:
        """Stop making steps, or die, if that is the fault that was seeded into this device."""
        if "crash" in self.seeded:
            raise RuntimeError("seeded crash of this worker")
        while "stall" in self.seeded:
            time.sleep(1)  # ended by the agent: that is what is being shown

"""GPUs read in turn by one thread, and left behind with it where a call does not return.

A thread of its own for each GPU would wake the machine eight times as often: on a cold core that is most of
the cost of sampling.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from burnin.node.gpu_watch import GpuWatch

FAST_EVERY_S = 0.1
STUCK_AFTER_S = 1.0  # the other GPUs lose no more than this when a call about one does not return


@dataclass(slots=True, eq=False)
class GpuRounds:
    """The GPUs that one thread reads, ten times a second."""

    gpus: list[GpuWatch]

    def follow(self) -> None:
        """Sample for ever."""
        next_at = time.monotonic()
        while True:
            for gpu in tuple(self.gpus):
                if gpu in self.gpus:  # it may have been given to another thread meanwhile
                    gpu.tick()
            next_at = max(next_at + FAST_EVERY_S, time.monotonic())
            time.sleep(max(next_at - time.monotonic(), 0))

    def split(self) -> GpuRounds | None:
        """Keep the GPU whose call does not return and hand the others over; None: there is no need."""
        stuck = next((gpu for gpu in self.gpus if gpu.watch.is_out(longer_s=STUCK_AFTER_S)), None)
        if stuck is None or len(self.gpus) == 1:
            return None
        others = [gpu for gpu in self.gpus if gpu is not stuck]
        self.gpus = [stuck]
        return GpuRounds(others)

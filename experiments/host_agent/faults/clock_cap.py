"""A GPU whose clock is held down: ``nvidia-smi -lgc``. One rank of many is slower: a straggler.

No driver tells whether clocks are locked: NVML has a call to lock and one to reset, none to ask. So whoever
wants this fault has to say what was locked before, and undoing repeats that without being able to look. That
the cap holds is seen only while the GPU works.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from experiments.host_agent.fault import Refused, run_command
from experiments.host_agent.smi import WITHIN_S, gpu_of, missing_smi, number, read_gpu, tell_gpu

_STEP_MHZ = 15.0  # between two clocks that a GPU can have
_BUSY_PERCENT_MIN = 5.0
_LOOKS, _BETWEEN_S = 5, 0.2
_SEEN = ("clocks.sm", "utilization.gpu")
_UNLOCKED = "none"


@dataclass(frozen=True)
class ClockCap:
    """Caps ``gpu`` (its UUID) at ``mhz``; ``locked_before``: none, or the lock of now, [low, high] in MHz."""

    name: str = "gpu.clock-cap"
    smi: str = "nvidia-smi"
    between_s: float = _BETWEEN_S

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        return missing_smi(self.smi)

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the range that it will be locked to, and what was locked before as we were told."""
        uuid, wanted = gpu_of(arguments), float(arguments.get("mhz") or 0)
        clocks = self._clocks(uuid)
        below = [clock for clock in clocks if clock <= wanted]
        if not below or below[-1] == clocks[-1]:
            raise Refused(
                f"{uuid}: mhz: wanted from {clocks[0]:g} to below {clocks[-1]:g}, which it can have; "
                f"got {wanted:g}"
            )
        return {
            "subject": f"gpu:{uuid}",
            "gpu": uuid,
            "low_mhz": clocks[0],
            "mhz": below[-1],
            "locked_before": _locked_before(arguments),
        }

    def inject(self, state: dict[str, Any]) -> None:
        """Lock the clock to the range from its lowest to the cap."""
        self._clocks(state["gpu"])
        is_done, said = tell_gpu(self.smi, state["gpu"], "-lgc", f"{state['low_mhz']:g},{state['mhz']:g}")
        if not is_done:
            raise Refused(f"{state['gpu']}: nvidia-smi did not take the lock: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See, while it works, a clock that is no higher than the cap."""
        looks = [self._look(state, is_first=index == 0) for index in range(_LOOKS)]
        busy = [clock for clock, percent in looks if percent >= _BUSY_PERCENT_MIN]
        highest = max(clock for clock, _ in looks)
        if highest > state["mhz"] + _STEP_MHZ:
            return False, f"{state['gpu']} runs at {highest:g} MHz, and was to be held at {state['mhz']:g}"
        if not busy:
            return (
                False,
                f"{state['gpu']} is idle at {highest:g} MHz: only under load is it seen to be held down",
            )
        return True, f"{state['gpu']} works at {max(busy):g} MHz, held at {state['mhz']:g}"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Reset the lock, or lock again what was locked: always, since nobody can see whether it has to."""
        before = state["locked_before"]
        words = ["-rgc"] if before == _UNLOCKED else ["-lgc", f"{before[0]:g},{before[1]:g}"]
        is_done, said = tell_gpu(self.smi, state["gpu"], *words)
        was = "unlocked" if before == _UNLOCKED else f"locked to {before[0]:g} to {before[1]:g} MHz"
        if not is_done:
            return False, f"{state['gpu']}: nvidia-smi {' '.join(words)}: {said}", True
        return (
            True,
            f"{state['gpu']}: told the driver that clocks are {was}; it agreed, and no driver shows it",
            True,
        )

    def is_seen_restored(self, state: dict[str, Any]) -> bool:
        """Return whether it was seen at a clock above the cap, which only a GPU at work shows."""
        try:
            looks = [self._look(state, is_first=index == 0) for index in range(_LOOKS)]
        except Refused:
            return False
        return any(clock > state["mhz"] + _STEP_MHZ for clock, _ in looks)

    def _look(self, state: dict[str, Any], *, is_first: bool) -> tuple[float, float]:
        time.sleep(0 if is_first else self.between_s)
        row = read_gpu(self.smi, state["gpu"], _SEEN)
        return number(row, "clocks.sm"), number(row, "utilization.gpu")

    def _clocks(self, uuid: str) -> list[float]:
        """Return the clocks that it can have, the lowest first."""
        query = ["--query-supported-clocks=graphics", "--format=csv,noheader,nounits"]
        status, said = run_command([self.smi, "-i", uuid, *query], deadline_s=WITHIN_S)
        found = {float(line) for line in said.split() if line.isdigit()} if status == 0 else set()
        if len(found) < 2:
            raise Refused(f"{uuid}: does not say which clocks it can have: {said[:200]}")
        return sorted(found)


def _locked_before(arguments: dict[str, Any]) -> Any:
    given: Any = arguments.get("locked_before")
    if given == _UNLOCKED:
        return _UNLOCKED
    is_pair = isinstance(given, list) and len(given) == 2
    if is_pair and all(isinstance(part, (int, float)) for part in given) and 0 < given[0] <= given[1]:
        return [float(part) for part in given]
    raise Refused(
        "locked_before: say what clocks are locked to now, [low, high] in MHz, or none; no driver tells, and "
        f"undoing puts that back; got {given!r}"
    )


CLOCK_CAP = ClockCap()

"""A GPU with less power than it had: ``nvidia-smi -pl``. It gets slower, as one that is short of cooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.host_agent.fault import Refused
from experiments.host_agent.smi import gpu_of, missing_smi, number, read_gpu, tell_gpu

_LIMITS = ("power.limit", "power.min_limit", "power.max_limit")
_SAME_W = 0.5  # the driver keeps milliwatts, and prints two digits


@dataclass(frozen=True)
class PowerCap:
    """Lowers the power limit of ``gpu`` (its UUID) to ``watts``."""

    name: str = "gpu.power-cap"
    smi: str = "nvidia-smi"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        return missing_smi(self.smi)

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the limit of now."""
        uuid, watts = gpu_of(arguments), float(arguments.get("watts") or 0)
        row = read_gpu(self.smi, uuid, _LIMITS)
        now, least = number(row, "power.limit"), number(row, "power.min_limit")
        if not least <= watts < now - _SAME_W:
            raise Refused(
                f"{uuid}: watts: wanted from {least:g} to below the limit of now, {now:g}; got {watts:g}"
            )
        return {"subject": f"gpu:{uuid}", "gpu": uuid, "watts": watts, "watts_before": now}

    def inject(self, state: dict[str, Any]) -> None:
        """Set the limit, if it is still the one that was seen."""
        now = self._limit(state)
        if abs(now - state["watts_before"]) > _SAME_W:
            raise Refused(
                f"{state['gpu']}: its limit was {state['watts_before']:g} W and is {now:g} W by now"
            )
        is_done, said = tell_gpu(self.smi, state["gpu"], "-pl", f"{state['watts']:g}")
        if not is_done:
            raise Refused(f"{state['gpu']}: nvidia-smi did not take the limit: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Read the limit, and the one that the driver enforces."""
        row = read_gpu(self.smi, state["gpu"], ("power.limit", "enforced.power.limit"))
        limit, enforced = number(row, "power.limit"), number(row, "enforced.power.limit")
        is_there = abs(limit - state["watts"]) <= _SAME_W and enforced <= state["watts"] + _SAME_W
        return is_there, f"{state['gpu']}: its limit is {limit:g} W, and {enforced:g} W is enforced"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Give it back the limit of before; one that somebody else has set since is left alone."""
        try:
            now = self._limit(state)
            if abs(now - state["watts_before"]) <= _SAME_W:
                return True, f"nothing to do: {state['gpu']} may take {now:g} W, as before", False
            if abs(now - state["watts"]) > _SAME_W:
                said = (
                    f"nothing to do: our limit is gone; {now:g} W is of the driver's start or somebody else's"
                )
                return True, f"{state['gpu']}: {said}, and was {state['watts_before']:g} W", False
            _, said = tell_gpu(self.smi, state["gpu"], "-pl", f"{state['watts_before']:g}")
            now = self._limit(state)
        except Refused as refused:
            return False, str(refused), False
        is_restored = abs(now - state["watts_before"]) <= _SAME_W
        did = f"{state['gpu']}: gave it back {state['watts_before']:g} W"
        return is_restored, did if is_restored else f"{state['gpu']}: is still at {now:g} W: {said}", True

    def _limit(self, state: dict[str, Any]) -> float:
        return number(read_gpu(self.smi, state["gpu"], ("power.limit",)), "power.limit")


POWER_CAP = PowerCap()

"""A slow network: what an interface sends is limited to a rate by a token bucket (tc tbf).

Only what it sends, and only what passes the kernel: RDMA does not.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from experiments.host_agent.fault import Refused, run_command
from experiments.host_agent.faults.link import carries_us

RATE_MBIT_MIN = 0.05
WAY_IN_RATE_MBIT_MIN = 1.0  # below it SSH itself, and with it the game day, may time out
BURST_BYTES_MIN = 16 * 1024
_PER_TICK_S = 1 / 250  # the bucket holds at least what passes in one tick of a kernel of 250 Hz
_QUEUE_MS = 50
# The kernel attaches these by itself, with handle 0, and again once ours is deleted.
_OF_THE_KERNEL = "0:"
_OUTSIDE_ROOT = ("ingress", "clsact")  # they hang beside the root, and stay


@dataclass(frozen=True)
class Bandwidth:
    """Limits ``interface`` to ``rate_mbit``."""

    name: str = "network.bandwidth"
    tc: str = "tc"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        if run_command([self.tc, "-V"])[0] == 127:
            return ["tc is not installed (package iproute2)"]
        return []

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the disciplines that are there, where undoing brings them back."""
        interface, rate = str(arguments.get("interface") or ""), float(arguments.get("rate_mbit") or 0)
        if not interface:
            raise Refused("no interface is named")
        if rate < RATE_MBIT_MIN:
            raise Refused(f"rate_mbit: wanted at least {RATE_MBIT_MIN:g}, got {rate:g}")
        if rate < WAY_IN_RATE_MBIT_MIN and (why := carries_us(interface)):
            raise Refused(
                f"{interface}: {why}; {rate:g} Mbit/s is too little: {WAY_IN_RATE_MBIT_MIN:g} at least"
            )
        before = self._disciplines(interface)
        for one in before:
            if one["handle"] != _OF_THE_KERNEL:
                raise Refused(
                    f"{interface}: somebody has set up {one['kind']} {one['handle']} there, which could not "
                    "be put back as it was; nothing is touched"
                )
        return {
            "subject": f"interface:{interface}",
            "interface": interface,
            "bytes_per_s": int(rate * 1e6 / 8),
            "before": [one["kind"] for one in before],
            "handle": f"{0x1000 + secrets.randbelow(0x6000):x}:",
        }

    def inject(self, state: dict[str, Any]) -> None:
        """Put the bucket at the root; the kernel refuses where somebody has put something there meanwhile."""
        rate = state["bytes_per_s"]
        bucket = ["rate", f"{rate * 8}bit", "burst", f"{max(BURST_BYTES_MIN, int(rate * _PER_TICK_S))}"]
        root = ["qdisc", "add", "dev", state["interface"], "root", "handle", state["handle"], "tbf"]
        status, said = run_command([self.tc, *root, *bucket, "latency", f"{_QUEUE_MS}ms"])
        if status:
            raise Refused(f"{state['interface']}: tc did not take the limit: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Read from the kernel that the root is our bucket with that rate."""
        root = self._root(state["interface"])
        if root is None or root["handle"] != state["handle"]:
            return False, f"{state['interface']}: its root is {_called(root)}, not ours"
        rate = int(root["options"]["rate"])
        sent = f"{rate * 8 / 1e6:g} Mbit/s at most"
        return rate == state["bytes_per_s"], f"{state['interface']}: {sent}, by tbf {state['handle']}"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Delete our bucket, upon which the kernel puts its own discipline back; no other is touched."""
        interface = state["interface"]
        try:
            root = self._root(interface)
            if root is None or root["handle"] != state["handle"]:
                return True, f"nothing to do: the root of {interface} is {_called(root)}, not ours", False
            _, said = run_command([self.tc, "qdisc", "del", "dev", interface, "root"])
            kinds = [one["kind"] for one in self._disciplines(interface)]
        except Refused as refused:  # the interface is gone, and with it what hung on it; or it comes back
            return self._is_interface_gone(interface), f"{interface}: {refused}", False
        is_restored = kinds == state["before"]
        now = ", ".join(kinds) or "nothing"
        if is_restored:
            return True, f"deleted the limit of {interface}; there is {now} again", True
        return False, f"{interface}: there is {now}, and was {', '.join(state['before'])}; {said}", True

    def _is_interface_gone(self, interface: str) -> bool:
        status, said = run_command(["ip", "-o", "link", "show", "dev", interface])
        return status == 1 and "does not exist" in said

    def _root(self, interface: str) -> dict[str, Any] | None:
        return next((one for one in self._disciplines(interface) if one.get("root")), None)

    def _disciplines(self, interface: str) -> list[dict[str, Any]]:
        status, said = run_command([self.tc, "-j", "qdisc", "show", "dev", interface])
        if status:
            raise Refused(f"tc cannot read {interface}: {said}")
        listed = [one for one in json.loads(said or "[]") if one["kind"] not in _OUTSIDE_ROOT]
        return sorted(listed, key=lambda one: str(one.get("parent", "")))


def _called(root: dict[str, Any] | None) -> str:
    return f"{root['kind']} {root['handle']}" if root else "nothing"


BANDWIDTH = Bandwidth()

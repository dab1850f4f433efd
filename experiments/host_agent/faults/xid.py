"""A synthetic XID: one line in the kernel's log as NVIDIA's driver writes it. The GPU itself has nothing.

Whatever watches the log acts on it as if it were true: cordons, drains, resets, opens tickets. It cannot be
taken back. So it wants a sentence of the user's own, word by word. The kernel marks a line that a program
wrote as such; a watcher that takes only the kernel's own lines does not see it.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.fault import Refused

CONSENT = "the site's automation will act on it"
_PCI = re.compile(r"[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(\.[0-7])?")
_WARNING = "<4>"  # of the kernel's levels, the one that the driver uses
_LINE = "NVRM: Xid (PCI:{pci}): {xid}, pid='<unknown>', name=<unknown>, synthetic, {mark}"


@dataclass(frozen=True)
class Xid:
    """Writes XID ``xid`` of the GPU at ``pci``; ``consent`` has to be the sentence above."""

    name: str = "gpu.xid"
    log: Path = Path("/dev/kmsg")

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        try:
            with self.log.open("ab", buffering=0):
                return []
        except OSError as error:
            return [f"the kernel's log cannot be written to: {self.log}: {error.strerror}"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the line that will be written."""
        xid, pci = arguments.get("xid"), str(arguments.get("pci") or "")
        if arguments.get("consent") != CONSENT:
            raise Refused(f"gpu.xid cannot be taken back; consent: wanted {CONSENT!r}")
        if isinstance(xid, bool) or not isinstance(xid, int) or not 0 < xid < 1000:
            raise Refused(f"xid: wanted its number, got {xid!r}")
        if not _PCI.fullmatch(pci):
            raise Refused(f"pci: wanted an address such as 0000:17:00, got {pci!r}")
        # The driver names no function of the device.
        line = _LINE.format(pci=pci.partition(".")[0], xid=xid, mark=f"overproof-{secrets.token_hex(8)}")
        return {"subject": f"log:Xid {xid} of {pci}", "line": line}

    def inject(self, state: dict[str, Any]) -> None:
        """Write the line."""
        try:
            with self.log.open("ab", buffering=0) as log:
                log.write(f"{_WARNING}{state['line']}\n".encode())
        except OSError as error:
            raise Refused(f"{self.log}: {error.strerror}") from error

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """Read it back."""
        is_there = self._is_written(state)
        return is_there, f"{self.log} {'holds' if is_there else 'does not hold'}: {state['line']}"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Nothing can be undone; say whether there was anything."""
        if self._is_written(state):
            return (
                True,
                "nothing can be undone: the line stays in the kernel's log, and changes nothing by itself",
                False,
            )
        return True, "nothing to do: the kernel's log does not hold the line", False

    def _is_written(self, state: dict[str, Any]) -> bool:
        try:
            descriptor = os.open(self.log, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            while chunk := self._record(descriptor):
                if state["line"].encode() in chunk:
                    return True
        finally:
            os.close(descriptor)
        return False

    def _record(self, descriptor: int) -> bytes:
        """Return the next record; empty: there are no more. One overwritten meanwhile is passed over."""
        while True:
            try:
                return os.read(descriptor, 1 << 20)
            except BlockingIOError:
                return b""
            except BrokenPipeError:
                continue


XID = Xid()

"""A GPU that is gone: its driver is unbound from the PCI device, and bound again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.fault import Refused
from experiments.host_agent.smi import gpu_of, read_gpu
from probes.child import wait_until

WITHIN_S = 30.0
_POLL_S = 0.05
_SETTLED_WITHIN_S = 2.0  # a driver may be bound a moment after it was asked for
_ADDRESS = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])")
_LONG_ADDRESS = re.compile(r"[0-9a-fA-F]{4}([0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])")
_DRIVERS = ("nvidia",)
_WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2] + '\\n')"


@dataclass(frozen=True)
class Unbind:
    """Unbinds the driver of ``gpu`` (its UUID) or of the device at ``pci``, such as 0000:17:00.0."""

    name: str = "gpu.unbind"
    smi: str = "nvidia-smi"
    bus: Path = Path("/sys/bus/pci")
    proc: Path = Path("/proc")
    within_s: float = WITHIN_S

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        return [] if (self.bus / "devices").is_dir() else [f"there is no {self.bus}: no PCI devices here"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the device and its driver; refuse one that is in use, which the kernel would wait for."""
        address = self._address(arguments)
        driver = self._driver(address)
        if driver not in _DRIVERS:
            raise Refused(
                f"{address}: its driver is {driver or 'absent'}, and only {', '.join(_DRIVERS)} is unbound"
            )
        self._refuse_users(address)
        return {"subject": f"gpu:{address}", "pci": address, "driver": driver}

    def inject(self, state: dict[str, Any]) -> None:
        """Unbind it, if nobody uses it by now."""
        if self._driver(state["pci"]) != state["driver"]:
            raise Refused(f"{state['pci']}: its driver is no longer {state['driver']}")
        self._refuse_users(state["pci"])
        said = self._write(self.bus / "drivers" / state["driver"] / "unbind", state["pci"])
        if said:
            raise Refused(f"{state['pci']}: the kernel did not unbind it: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See in sysfs that the device has no driver."""
        wait_until(lambda: not self._driver(state["pci"]), timeout_s=_SETTLED_WITHIN_S)
        driver = self._driver(state["pci"])
        return not driver, f"{state['pci']}: its driver is {driver or 'absent'}"

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Bind the driver of before; a device that is not even on the bus is looked for first."""
        address, wanted = state["pci"], state["driver"]
        if hanging := _writers(self.bus / "drivers" / wanted / "unbind", address):
            return False, f"{address}: unbinding it still hangs in the kernel, in pid {hanging[0]}", False
        if self._driver(address) == wanted:
            return True, f"nothing to do: {address} has its driver {wanted}", False
        did = []
        if not (self.bus / "devices" / address).exists():
            did.append(self._write(self.bus / "rescan", "1") or "had the bus scanned again")
        if not self._driver(address):  # a scan may have bound it already
            said = self._write(self.bus / "drivers" / wanted / "bind", address)
            did.append(said or f"bound {wanted} to {address}")
        wait_until(lambda: self._driver(address) == wanted, timeout_s=_SETTLED_WITHIN_S)
        driver = self._driver(address)
        return driver == wanted, f"{'; '.join(did)}; its driver is {driver or 'absent'}", True

    def _address(self, arguments: dict[str, Any]) -> str:
        given = str(arguments.get("pci") or "")
        if bool(given) == bool(arguments.get("gpu")):
            raise Refused("give one of gpu, a UUID, and pci, an address such as 0000:17:00.0")
        if not given:
            given = read_gpu(self.smi, gpu_of(arguments), ("pci.bus_id",))["pci.bus_id"]
        long = _LONG_ADDRESS.fullmatch(given)
        address = (long[1] if long else given).lower()
        if not _ADDRESS.fullmatch(address) or not (self.bus / "devices" / address).exists():
            raise Refused(f"pci: there is no device {given!r}; wanted an address such as 0000:17:00.0")
        return address

    def _driver(self, address: str) -> str:
        """Return the name of a device's driver; empty: it has none."""
        try:
            return (self.bus / "devices" / address / "driver").readlink().name
        except OSError:
            return ""

    def _refuse_users(self, address: str) -> None:
        """Refuse a device that a process has open: unbinding it would hang in the kernel until that ends."""
        information = self.proc / "driver" / "nvidia" / "gpus" / address / "information"
        try:
            minor = re.search(r"Device Minor:\s*(\d+)", information.read_text())
        except OSError as error:
            raise Refused(f"{information}: {error.strerror}; who uses the GPU cannot be told") from error
        if minor is None:
            raise Refused(f"{information} names no device file; who uses the GPU cannot be told")
        file = f"/dev/nvidia{minor[1]}"
        users = sorted(pid for pid in self._pids() if file in self._open_files(pid))
        if users:
            who = ", ".join(f"{pid} ({self._program(pid)})" for pid in users)
            raise Refused(f"{address}: {file} is in use by pid {who}; drain it first, daemons as well")

    def _pids(self) -> list[int]:
        return [int(entry) for entry in os.listdir(self.proc) if entry.isdigit()]  # noqa: PTH208

    def _open_files(self, pid: int) -> set[str]:
        folder, found = self.proc / str(pid) / "fd", set()
        try:
            names = os.listdir(folder)  # noqa: PTH208
        except OSError:
            return set()  # it ended meanwhile
        for name in names:
            try:
                found.add(str((folder / name).readlink()))
            except OSError:
                continue
        return found

    def _program(self, pid: int) -> str:
        try:
            return (self.proc / str(pid) / "comm").read_text().strip()
        except OSError:
            return "gone"

    def _write(self, file: Path, text: str) -> str:
        """Write to sysfs in a process of its own, since it can hang in the kernel; empty: it succeeded."""
        writer = subprocess.Popen(
            [sys.executable, "-I", "-c", _WRITE, str(file), text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + self.within_s
        while writer.poll() is None:
            if time.monotonic() > deadline:
                writer.returncode = 0  # nothing can end it while it is in the kernel; Popen must not wait
                return f"writing to {file} hangs in the kernel since {self.within_s:g} s"
            time.sleep(_POLL_S)
        return "" if writer.returncode == 0 else f"writing to {file} failed"


def _writers(file: Path, text: str) -> list[int]:
    """Return our processes that are still writing that: once the kernel lets go, it happens after all."""
    words = [b"-c", *(part.encode() for part in (_WRITE, str(file), text)), b""]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().split(b"\0")[-len(words) :] == words:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile
    return found


UNBIND = Unbind()

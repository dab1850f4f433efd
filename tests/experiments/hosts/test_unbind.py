"""Unbinding a GPU's driver, with a tree of files in place of sysfs, and threads for the kernel."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.unbind import Unbind
from probes.child import wait_until
from tests.experiments.hosts.stand_ins import UUID, h100, stand_in

PCI = "0000:10:00.0"


@dataclass(frozen=True)
class Kernel:
    """A bus with one GPU, and files that do something when they are written to: pipes with a reader."""

    root: Path

    @property
    def bus(self) -> Path:
        return self.root / "bus"

    @property
    def device(self) -> Path:
        return self.bus / "devices" / PCI

    def make(self) -> None:
        driver = self.bus / "drivers" / "nvidia"
        driver.mkdir(parents=True)
        self.appear()
        self.bind()
        information = self.root / "proc" / "driver" / "nvidia" / "gpus" / PCI
        information.mkdir(parents=True)
        (information / "information").write_text("Model: NVIDIA H100\nDevice Minor: \t 3\n")
        for file in (driver / "bind", driver / "unbind", self.bus / "rescan"):
            os.mkfifo(file)

    def appear(self) -> None:
        self.device.mkdir(parents=True)

    def bind(self) -> None:
        (self.device / "driver").symlink_to(self.bus / "drivers" / "nvidia")

    def unbind(self) -> None:
        (self.device / "driver").unlink()

    def uses(self, pid: int, file: str) -> None:
        """Let a process have that file open."""
        folder = self.root / "proc" / str(pid) / "fd"
        folder.mkdir(parents=True)
        (folder.parent / "comm").write_text("python3\n")
        (folder / "5").symlink_to(file)

    def fault(self, within_s: float = 20.0) -> Unbind:
        smi = stand_in(self.root, "nvidia-smi", h100())
        return Unbind(smi=str(smi.path), bus=self.bus, proc=self.root / "proc", within_s=within_s)


@contextlib.contextmanager
def obeying(kernel: Kernel) -> Iterator[None]:
    """Do what is written to the pipes, as the kernel would, until the body is done."""
    driver = kernel.bus / "drivers" / "nvidia"
    acts = {
        driver / "bind": kernel.bind,
        driver / "unbind": kernel.unbind,
        kernel.bus / "rescan": kernel.appear,
    }

    def obey(file: Path) -> None:
        while True:
            # Held open for both, so that a writer never waits and we never read an end.
            with file.open("r+b", buffering=0) as pipe:
                text = pipe.read(64).decode().strip()
            if text == "end":
                return
            if text in (PCI, "1"):
                acts[file]()

    threads = [threading.Thread(target=obey, args=(file,)) for file in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for file, thread in zip(acts, threads, strict=True):
            file.write_text("end")
            thread.join(timeout=10)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    made.make()
    with obeying(made):
        yield made


def test_the_driver_is_gone_and_is_back_afterwards(kernel: Kernel) -> None:
    fault = kernel.fault()
    assert fault.missing({}) == []
    state = fault.capture({"gpu": UUID})
    assert state["pci"] == PCI
    assert fault.verify(state)[0] is False

    fault.inject(state)

    assert fault.verify(state) == (True, f"{PCI}: its driver is absent")
    assert fault.undo(state) == (True, f"bound nvidia to {PCI}; its driver is nvidia", True)
    assert fault.undo(state) == (True, f"nothing to do: {PCI} has its driver nvidia", False)


def test_armed_and_never_injected_leaves_it_bound(kernel: Kernel) -> None:
    fault = kernel.fault()
    state = fault.capture({"pci": PCI})

    assert fault.undo(state)[::2] == (True, False)


def test_a_device_that_left_the_bus_is_looked_for_first(kernel: Kernel) -> None:
    fault = kernel.fault()
    state = fault.capture({"pci": PCI})
    fault.inject(state)
    kernel.device.rmdir()

    is_restored, did, _ = fault.undo(state)

    assert is_restored
    assert did.startswith("had the bus scanned again; bound nvidia")


def test_a_gpu_that_a_process_has_open_is_refused_also_at_the_last_moment(kernel: Kernel) -> None:
    fault = kernel.fault()
    kernel.uses(41, "/dev/nvidiactl")  # of the driver as a whole: holds no GPU
    kernel.uses(42, "/dev/nvidia30")
    state = fault.capture({"pci": PCI})
    kernel.uses(43, "/dev/nvidia3")

    for attempt in (lambda: fault.capture({"pci": PCI}), lambda: fault.inject(state)):
        with pytest.raises(Refused, match=r"in use by pid 43 \(python3\)"):
            attempt()
    assert fault.verify(state)[0] is False


def test_who_uses_a_gpu_cannot_be_told_and_so_it_is_refused(kernel: Kernel) -> None:
    (kernel.root / "proc" / "driver" / "nvidia" / "gpus" / PCI / "information").unlink()

    with pytest.raises(Refused, match="cannot be told"):
        kernel.fault().capture({"pci": PCI})


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "one of gpu"),
        ({"pci": PCI, "gpu": UUID}, "one of gpu"),
        ({"pci": "0000:99:00.0"}, "no device"),
        ({"pci": "../../etc"}, "no device"),
    ],
)
def test_a_device_that_is_not_named_or_not_there_is_refused(
    kernel: Kernel, arguments: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        kernel.fault().capture(arguments)


def test_another_driver_than_nvidias_is_refused(kernel: Kernel) -> None:
    (kernel.bus / "drivers" / "nvme").mkdir()
    kernel.unbind()
    (kernel.device / "driver").symlink_to(kernel.bus / "drivers" / "nvme")

    with pytest.raises(Refused, match="its driver is nvme"):
        kernel.fault().capture({"pci": PCI})


def test_a_kernel_that_hangs_in_the_write_is_not_waited_for(tmp_path: Path) -> None:
    deaf = Kernel(tmp_path)
    deaf.make()
    fault = deaf.fault(within_s=0.5)
    state = fault.capture({"pci": PCI})

    with pytest.raises(Refused, match="hangs in the kernel"):
        fault.inject(state)  # nobody reads the pipe
    is_restored, said, _ = fault.undo(state)
    assert not is_restored  # bound still, and not for long
    assert "still hangs in the kernel" in said
    os.close(os.open(deaf.bus / "drivers" / "nvidia" / "unbind", os.O_RDONLY | os.O_NONBLOCK))
    assert wait_until(lambda: fault.undo(state)[0], timeout_s=10)
    deaf.unbind()
    assert fault.undo(state)[0] is False
    os.close(os.open(deaf.bus / "drivers" / "nvidia" / "bind", os.O_RDONLY | os.O_NONBLOCK))

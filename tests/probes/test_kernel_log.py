"""The kernel's log: its messages understood as drivers really write them, and read without disturbing it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from probes.kernel_log import KernelLog, LogAbsent, find_trouble, messages_of, pci_key

MESSAGES = {
    "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.": (
        "xid", "", "0000:3b:00", 79,
    ),
    "NVRM: Xid (PCI:0000:5d:00 GPU-I:05): 45, pid=1, name=python, Ch 00000008": ("xid", "", "0000:5d:00", 45),
    "NVRM: Xid (0000:03:00): 13, Graphics Exception: ESR 0x405840=0xa204": ("xid", "", "0000:03:00", 13),
    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error": (
        "sxid", "uncorrected", "0000:c1:00.0", 12028,
    ),
    "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 46 LTSSM Fault Up": (
        "sxid", "fatal", "0000:c1:00.0", 20034,
    ),
    "pcieport 0000:5d:01.0: AER: Corrected error received: 0000:5e:00.0": (
        "aer", "corrected", "0000:5e:00.0", None,
    ),
    "pcieport 0000:5d:01.0: AER: Multiple Uncorrected (Fatal) error received: 0000:5e:00.0": (
        "aer", "fatal", "0000:5e:00.0", None,
    ),
    "pcieport 0000:00:1c.5: AER: Uncorrectable (Non-Fatal) error message received from 0000:05:00.0": (
        "aer", "uncorrected", "0000:05:00.0", None,
    ),
    "nvidia 0000:5e:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)": (
        "aer", "corrected", "0000:5e:00.0", None,
    ),
    "mce: [Hardware Error]: Machine check events logged": ("mce", "corrected", "", None),
    "mce: [Hardware Error]: CPU 2: Machine Check Exception: 5 Bank 6: b200000000100151": (
        "mce", "fatal", "", None,
    ),
    "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0": ("edac", "corrected", "", None),
    "EDAC MC1: 1 UE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#1": ("edac", "uncorrected", "", None),
    "NVRM: GPU 0000:3b:00.0: RmInitAdapter failed! (0x22:0x56:884)": ("driver", "", "0000:3b:00.0", None),
}  # fmt: skip


@pytest.mark.parametrize(("message", "wanted"), MESSAGES.items())
def test_a_message_of_trouble_tells_what_where_and_how_bad(
    message: str, wanted: tuple[str, str, str, int | None]
) -> None:
    found = find_trouble(message)

    assert found is not None
    assert (found.what, found.severity, found.pci, found.code) == wanted


@pytest.mark.parametrize(
    "message",
    [
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.82.07",
        "pcieport 0000:00:1c.0: AER: enabled with IRQ 122",
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
        "mce: CPU0: Thermal monitoring enabled (TM1)",
        "EDAC MC0: Giving out device to module skx_edac controller Skylake",
    ],
)
def test_a_message_of_daily_life_is_no_trouble(message: str) -> None:
    assert find_trouble(message) is None


def test_kernel_and_driver_write_one_address_in_several_ways() -> None:
    assert pci_key("00000000:3B:00.0") == pci_key("0000:3b:00") == pci_key("0000:3b:00.0") == (0, 0x3B, 0)
    assert pci_key("nothing") is None


def test_details_of_a_record_are_no_messages_of_their_own() -> None:
    chunk = "3,1,5,-;first\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n4,2,6,-;second; with more\n"

    assert messages_of(chunk) == ["first", "second; with more"]


def test_only_what_comes_after_the_start_is_read_and_each_message_once(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    file = tmp_path / "dev" / "kmsg"
    file.write_text("3,1,1,-;before\n")
    log = KernelLog(tmp_path)
    with file.open("a") as kernel:
        kernel.write("3,2,2,-;after\n")

    assert (log.read_new(), log.read_new()) == (["after"], [])


def test_a_log_that_is_not_there_is_absent(tmp_path: Path) -> None:
    with pytest.raises(LogAbsent, match="No such file"):
        KernelLog(tmp_path)


@pytest.mark.needs("root")
def test_a_user_without_the_right_to_the_log_is_told_so() -> None:
    code = (
        "import os, sys; from pathlib import Path; from probes.kernel_log import *\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: KernelLog(Path(sys.argv[1]))\n"
        "except LogUnreadable as error: print('unreadable', error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "dev").mkdir()
        (Path(folder) / "dev" / "kmsg").touch(mode=0o600)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    assert done.stdout == "unreadable /dev/kmsg: Permission denied\n", done.stderr

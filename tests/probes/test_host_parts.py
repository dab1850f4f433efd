"""PCIe access control, drives, memory modules, the controller's log, as kernel and tools write them."""

from __future__ import annotations

import struct
from pathlib import Path

from probes.acs import find_acs_control, read_iommu, read_ports_above
from probes.bmc_log import parse_log, read_bmc_log
from probes.dimms import parse_module, read_modules, read_node_memory
from probes.nvme_health import parse_smart, read_drives
from tests.probes.trees import plant

ROOT_PORT, UP, DOWN = "0000:00:01.0", "0000:01:00.0", "0000:02:00.0"
GPU = "0000:03:00.0"


def _space(control: int) -> bytes:
    """A configuration space with an error-reporting capability first and access control behind it."""
    aer = struct.pack("<I", 0x0001 | 1 << 16 | 0x140 << 20).ljust(0x40, b"\0")
    return bytes(0x100) + aer + struct.pack("<IHH", 0x000D | 1 << 16, 0x5F, control) + bytes(32)


def test_each_port_above_a_gpu_is_read_with_its_bits_and_what_is_below(tmp_path: Path) -> None:
    deep = f"sys/devices/pci0000:00/{ROOT_PORT}/{UP}/{DOWN}"
    plant(tmp_path, {f"{deep}/{GPU}/class": "0x030200\n", f"{deep}/{GPU}/iommu_group/type": "DMA-FQ\n"})
    (tmp_path / deep / "config").write_bytes(_space(0x1D))
    (tmp_path / f"sys/devices/pci0000:00/{ROOT_PORT}/config").write_bytes(bytes(64))  # as without root
    devices = tmp_path / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / GPU).symlink_to(tmp_path / deep / GPU)

    ports = {port["address"]: port for port in read_ports_above(tmp_path)}

    assert set(ports) == {ROOT_PORT, UP, DOWN}
    assert (ports[DOWN]["control"], ports[DOWN]["above"], ports[DOWN]["gpus"]) == (0x1D, UP, [GPU])
    assert [ports[name]["is_root"] for name in (ROOT_PORT, UP, DOWN)] == [True, False, False]
    assert "64 bytes" in ports[ROOT_PORT]["problem"]
    assert "No such file" in ports[UP]["problem"]
    assert read_iommu(tmp_path) == {GPU: "DMA-FQ"}


def test_a_port_without_access_control_and_a_list_in_a_circle_have_none() -> None:
    circle = bytes(0x100) + struct.pack("<I", 0x0001 | 1 << 16 | 0x100 << 20) + bytes(64)

    assert find_acs_control(bytes(4096)) is find_acs_control(circle) is None


def test_the_smart_log_is_read_at_the_places_of_the_specification() -> None:
    log = bytearray(512)
    log[0:6] = bytes((0x04, *(313).to_bytes(2, "little"), 90, 10, 7))
    log[160:176] = (2**70).to_bytes(16, "little")

    said = parse_smart(bytes(log))

    assert (said["critical_warning"], said["temperature_c"], said["used_pct"]) == (4, 40, 7)
    assert (said["spare_pct"], said["spare_pct_min"], said["media_errors"]) == (90, 10, 2**70)


def test_a_drive_that_cannot_be_asked_says_why(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {"sys/class/nvme/nvme0/state": "live", "sys/class/nvme/nvme1/state": "live", "dev/nvme1": ""},
    )

    said = read_drives(tmp_path)

    assert "No such file" in said["nvme0"]["problem"]
    assert "ioctl" in said["nvme1"]["problem"]  # an ordinary file takes no such command


def _module(size: int, *, extended_mib: int = 0, length: int = 0x28) -> bytes:
    raw = bytearray(length)
    raw[0], raw[1], raw[0x10], raw[0x11] = 17, length, 1, 2
    struct.pack_into("<H", raw, 0x0C, size)
    struct.pack_into("<H", raw, 0x15, 5600)
    if length > 0x20:
        struct.pack_into("<I", raw, 0x1C, extended_mib)
        struct.pack_into("<H", raw, 0x20, 4800)
    return bytes(raw) + b"DIMM_A1\0P0 Node0\0\0"


def test_a_module_is_read_in_each_way_in_which_firmware_states_its_size() -> None:
    large, small = parse_module(_module(0x7FFF, extended_mib=65536)), parse_module(_module(16384))

    assert large == {
        "slot": "P0 Node0 DIMM_A1", "size_mib": 65536, "is_empty": False,
        "speed_mts_max": 5600, "speed_mts": 4800,
    }  # fmt: skip
    assert (small["size_mib"], parse_module(_module(0x8000 | 2048))["size_mib"]) == (16384, 2)
    assert parse_module(_module(0))["is_empty"]
    assert parse_module(_module(0xFFFF))["size_mib"] is None
    assert parse_module(_module(16384, length=0x1B))["speed_mts"] is None  # a table of an older version


def test_modules_come_from_firmware_else_from_edac_else_the_reason_is_told(tmp_path: Path) -> None:
    edac = {
        "sys/devices/system/edac/mc/mc0/dimm0/size": "32768\n",
        "sys/devices/system/edac/mc/mc0/dimm0/dimm_label": "CPU_SrcID#0_MC#0_Chan#0_DIMM#0\n",
    }

    nothing = read_modules(tmp_path)
    by_edac = read_modules(plant(tmp_path, edac))
    entry = tmp_path / "sys/firmware/dmi/entries/17-0"
    entry.mkdir(parents=True)
    (entry / "raw").write_bytes(_module(16384))
    by_firmware = read_modules(tmp_path)

    assert (nothing["source"], nothing["problem"]) == ("", "the firmware states none")
    assert (by_edac["source"], by_edac["modules"][0]["size_mib"]) == ("edac", 32768)
    assert (by_firmware["source"], by_firmware["modules"][0]["size_mib"]) == ("dmi", 16384)


def test_memory_without_processors_is_no_nodes_main_memory(tmp_path: Path) -> None:
    node = "sys/devices/system/node"
    plant(
        tmp_path,
        {
            f"{node}/node0/meminfo": "Node 0 MemTotal:  1024 kB\n",
            f"{node}/node0/cpulist": "0-3\n",
            f"{node}/node2/meminfo": "Node 2 MemTotal:  4096 kB\n",  # memory of a GPU, or on CXL
            f"{node}/node2/cpulist": "\n",
        },
    )

    assert read_node_memory(tmp_path) == {"node0": 2**20}


def test_the_controllers_log_is_read_line_by_line() -> None:
    text = (
        "   1 | 04/12/2026 | 10:15:55 | Memory #0x53 | Correctable ECC | Asserted\n"
        "   2 | 04/12/2026 | 10:16:00 | Power Supply #0x51 | Failure detected () | Deasserted\n"
        "   3 | Pre-Init  |0000000012| Fan #0x30 | Lower Critical going low  | Asserted\nnoise\n"
    )

    entries = parse_log(text)

    assert [(e["id"], e["sensor"], e["is_asserted"]) for e in entries] == [
        ("1", "Memory #0x53", True),
        ("2", "Power Supply #0x51", False),
        ("3", "Fan #0x30", True),
    ]


def test_a_tool_that_is_absent_fails_or_finds_nothing_are_three_things() -> None:
    assert read_bmc_log(["no-such-tool-here"]) is None
    failed = read_bmc_log(["sh", "-c", "echo 'Could not open device at /dev/ipmi0' >&2; exit 1"])
    empty = read_bmc_log(["sh", "-c", "echo 'SEL has no entries' >&2; exit 1"])

    assert failed == {"entries": [], "problem": "Could not open device at /dev/ipmi0"}
    assert empty == {"entries": [], "problem": ""}

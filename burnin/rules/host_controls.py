"""Positive controls of the rules on a host: an invented host with one fault each, through parser and rule."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from burnin.node.visible import split_visible
from burnin.rules.host_parts import judge_acs, judge_bmc_log, judge_drives, judge_modules
from burnin.rules.host_setup_rules import (
    judge_device_errors,
    judge_nic_links,
    judge_ports,
    judge_setup,
    judge_tools,
)
from burnin.rules.preconditions import judge_hidden
from probes.acs import find_acs_control
from probes.bmc_log import parse_log
from probes.dimms import parse_module
from probes.finding import Finding
from probes.host_setup import read_setup
from probes.json_types import JsonObject
from probes.nvme_health import parse_smart
from probes.outcome import Outcome
from probes.pci_devices import read_aer_counters, read_pci_devices
from probes.platform import BARE_METAL
from probes.rdma import read_port_counters, read_ports

T = TypeVar("T")
_NIC = "sys/bus/pci/devices/0000:5e:00.0"
_PORT = "sys/class/infiniband/mlx5_0/ports/1"
_HEALTHY = {
    "sys/class/nvme/nvme0/model": "a drive",
    "sys/class/nvme/nvme0/state": "live",
    f"{_NIC}/class": "0x020700",
    f"{_NIC}/current_link_speed": "32.0 GT/s PCIe",
    f"{_NIC}/max_link_speed": "32.0 GT/s PCIe",
    f"{_NIC}/current_link_width": "16",
    f"{_NIC}/max_link_width": "16",
    f"{_NIC}/aer_dev_fatal": "TOTAL_ERR_FATAL 0",
    f"{_PORT}/state": "4: ACTIVE",
    f"{_PORT}/rate": "400 Gb/sec (4X NDR)",
    f"{_PORT}/link_layer": "InfiniBand",
    f"{_PORT}/gids/0": "fe80:0000:0000:0000:b83f:d203:00c6:0d1e",
    f"{_PORT}/counters/link_downed": "0",
}
_SMART = bytes(512)
_BMC_FAULT = "   2 | 11/21/2026 | 10:00:00 | Memory #0x53 | Uncorrectable ECC | Asserted"


def host_faults() -> dict[str, Callable[[], Finding]]:
    """Return each seeded fault by name with the rule that must find it."""
    return {
        "dead NVMe drive": lambda: _setup({"sys/class/nvme/nvme0/state": "dead"}),
        "tool that hangs": lambda: judge_tools("h", [{"tool": "nvidia-smi", "took_s": 9.0, "error": ""}])[0],
        "port that is down": lambda: _ports({f"{_PORT}/state": "1: DOWN"}),
        "adapter with half a link": lambda: _links({f"{_NIC}/current_link_width": "8"}),
        "fatal error of an adapter": lambda: _errors({f"{_NIC}/aer_dev_fatal": "TOTAL_ERR_FATAL 1"}),
        "link that went down": lambda: _errors({f"{_PORT}/counters/link_downed": "1"}),
        "hidden GPU": _hidden,
        "PCIe switch that redirects": lambda: judge_acs("h", _switch(0x1D), {}, BARE_METAL),
        "warning of a drive": lambda: _drives(_smart(critical_warning=4)),
        "media error of a drive": lambda: _drives(_smart(media_errors=1)),
        "slow memory module": lambda: judge_modules("h", _modules(4800, 4400), {}, BARE_METAL),
        "missing memory module": lambda: judge_modules(
            "h", _modules(4800), {"node0": 2**40, "node1": 2**40 * 15 // 16}, BARE_METAL
        ),
        "event of the controller": lambda: judge_bmc_log("h", _log(""), _log(_BMC_FAULT)),
    }


def healthy_host() -> list[Finding]:
    """Return what the same rules say of the same host without the faults."""
    return [
        _setup({}),
        _ports({}),
        _links({}),
        *_all_errors({}),
        judge_acs("h", _switch(0x01), {}, BARE_METAL),
        _drives(_SMART),
        judge_modules("h", _modules(4800, 4800), {"node0": 2**40, "node1": 2**40}, BARE_METAL),
        judge_bmc_log(
            "h", _log(""), _log("   1 | 11/21/2026 | 10:00:00 | OS Boot | boot completed | Asserted")
        ),
    ]


def _setup(changed: Mapping[str, str]) -> Finding:
    setup = _read(changed, read_setup)
    return next(f for f in judge_setup("h", setup, gpu_count=1, has_rdma=False) if "nvme0" in f.subject)


def _ports(changed: Mapping[str, str]) -> Finding:
    return judge_ports("h", _read(changed, read_ports), "mlx5")[0]


def _links(changed: Mapping[str, str]) -> Finding:
    return judge_nic_links("h", _read(changed, read_pci_devices))[0]


def _errors(changed: Mapping[str, str]) -> Finding:
    found = _all_errors(changed)
    return next((f for f in found if f.outcome is Outcome.FAIL), found[0])


def _all_errors(changed: Mapping[str, str]) -> list[Finding]:
    def read(root: Path) -> dict[str, int]:
        return read_aer_counters(root) | read_port_counters(root)

    return judge_device_errors("h", _read({}, read), _read(changed, read))


def _read(changed: Mapping[str, str], read: Callable[[Path], T]) -> T:
    """Have a reader read the host from files, as it reads a real one."""
    with tempfile.TemporaryDirectory(prefix="overproof-control-") as folder:
        for name, text in (_HEALTHY | dict(changed)).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read(Path(folder))


def _hidden() -> Finding:
    gpus: list[JsonObject] = [{"uuid": f"GPU-{n}", "pci_bus_id": str(n), "name": "x"} for n in range(2)]
    _, hidden, _ = split_visible(gpus, "0", is_pci_order=True)
    return judge_hidden({"hidden": [gpu["uuid"] for gpu in hidden], "visible": "0"})[0]


def _switch(control: int) -> list[JsonObject]:
    """Two ports of one switch, a GPU below one and an adapter below the other, with these bits set."""
    space = bytes(0x100) + struct.pack("<IHH", 0x000D | 1 << 16, 0x5F, control) + bytes(16)
    port: JsonObject = {"is_root": False, "above": "0000:01:00.0", "problem": ""}
    port["control"] = find_acs_control(space)
    return [
        port | {"address": "0000:02:00.0", "gpus": ["0000:03:00.0"], "nics": []},
        port | {"address": "0000:02:01.0", "gpus": [], "nics": ["0000:04:00.0"]},
    ]


def _smart(*, critical_warning: int = 0, media_errors: int = 0) -> bytes:
    log = bytearray(_SMART)
    log[0] = critical_warning
    log[160:176] = media_errors.to_bytes(16, "little")
    return bytes(log)


def _drives(last: bytes) -> Finding:
    return judge_drives("h", {"nvme0": parse_smart(_SMART)}, {"nvme0": parse_smart(last)})[0]


def _modules(*speeds_mts: int) -> JsonObject:
    modules = [parse_module(_module(speed_mts)) for speed_mts in speeds_mts]
    return {"source": "dmi", "modules": modules, "problem": ""}


def _module(speed_mts: int) -> bytes:
    """A memory device of 32 GiB, as the firmware's table has it."""
    raw = bytearray(0x28)
    raw[0], raw[1], raw[0x10] = 17, len(raw), 1
    struct.pack_into("<H", raw, 0x0C, 0x7FFF)
    struct.pack_into("<H", raw, 0x15, 4800)
    struct.pack_into("<I", raw, 0x1C, 32768)
    struct.pack_into("<H", raw, 0x20, speed_mts)
    return bytes(raw) + b"DIMM_A1\0\0"


def _log(text: str) -> JsonObject:
    return {"entries": parse_log(text), "problem": ""}

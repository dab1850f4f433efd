"""GPUs and network adapters on the PCIe bus, from sysfs: link now and at most, and the errors of AER."""

from __future__ import annotations

import re
from pathlib import Path

from probes.json_types import JsonObject

# The first digits of PCI class codes: 3D and display controllers, network controllers.
_CLASSES = {"0x0300": "gpu", "0x0302": "gpu", "0x0200": "nic", "0x0207": "nic"}
_AER_FILES = {
    "correctable": "aer_dev_correctable",
    "non_fatal": "aer_dev_nonfatal",
    "fatal": "aer_dev_fatal",
}


def read_pci_devices(root: Path = Path("/")) -> list[JsonObject]:
    """Return each GPU and network adapter with its link; what the kernel does not say is None."""
    found = []
    for folder in sorted((root / "sys/bus/pci/devices").glob("*")):
        kind = _CLASSES.get(_text(folder / "class")[:6])
        if kind is not None:
            found.append({"address": folder.name, "what": kind, **_link(folder), **_slot(folder)})
    return found


def _link(folder: Path) -> JsonObject:
    return {
        "speed_gts": _speed(_text(folder / "current_link_speed")),
        "speed_gts_max": _speed(_text(folder / "max_link_speed")),
        "width": _number(_text(folder / "current_link_width")),
        "width_max": _number(_text(folder / "max_link_width")),
        "numa_node": _number(_text(folder / "numa_node")),
    }


def _slot(folder: Path) -> JsonObject:
    """Return what the port above offers: a fast card in a slower slot is how the machine was built."""
    above = folder.resolve().parent
    return {
        "slot_speed_gts_max": _speed(_text(above / "max_link_speed")),
        "slot_width_max": _number(_text(above / "max_link_width")),
    }


def read_aer_counters(root: Path = Path("/")) -> dict[str, int]:
    """Return the errors of every GPU and network adapter, by address and severity."""
    counters = {}
    for device in read_pci_devices(root):
        folder = root / "sys/bus/pci/devices" / str(device["address"])
        for severity, name in _AER_FILES.items():
            total = re.search(r"^TOTAL_ERR_\w+ (\d+)$", _text(folder / name), re.MULTILINE)
            if total:
                counters[f"aer/{device['address']}/{severity}"] = int(total[1])
    return counters


def _speed(text: str) -> float | None:
    found = re.match(r"([\d.]+) GT/s", text)
    return float(found[1]) if found else None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

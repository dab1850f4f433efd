"""What a host runs on: kernel, BIOS, operating system, and the firmware of its network adapters.

Standard library only; it travels to nodes. What this user may not read, or is not there, is left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from probes.json_types import JsonObject

# Files below /sys/class/dmi/id; the serial number is for root alone.
_DMI = {
    "bios": "bios_version",
    "bios date": "bios_date",
    "product": "product_name",
    "serial": "product_serial",
}
_FILLED_IN_BY_NOBODY = {
    "",
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "not specified",
    "none",
}


def read_fingerprints(root: Path = Path("/")) -> JsonObject:
    """Return what is compared between the hosts of a fleet."""
    host: JsonObject = {"kernel": _kernel(root), "os": _os(root), "microcode": _microcode(root)}
    host |= {key: _text(root / "sys/class/dmi/id" / name) for key, name in _DMI.items()}
    nics = [_nic(folder) for folder in sorted((root / "sys/class/infiniband").glob("*"))]
    return {"host": {key: value for key, value in host.items() if _is_said(value)}, "nics": nics}


def _is_said(value: str) -> bool:
    return value.lower() not in _FILLED_IN_BY_NOBODY


def _kernel(root: Path) -> str:
    return _text(root / "proc/sys/kernel/osrelease") or (os.uname().release if root == Path("/") else "")


def _os(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(root / "etc/os-release"), re.MULTILINE)
    return found.group(1) if found else ""


def _microcode(root: Path) -> str:
    found = re.search(r"^microcode\s*:\s*(\S+)", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return found.group(1) if found else ""


def _nic(folder: Path) -> JsonObject:
    """Return one adapter; firmware is for a board, which vendors name by an id of its own."""
    return {
        "adapter": folder.name,
        "type": _text(folder / "hca_type"),
        "board": _text(folder / "board_id"),
        "firmware": _text(folder / "fw_ver"),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

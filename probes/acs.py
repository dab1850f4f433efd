"""PCIe access control (ACS) on the ports above GPUs and network adapters, and the IOMMU behind them.

Where a port redirects requests of its peers, what a GPU sends to the card beside it takes the way through the
processor. The registers lie in a part of the configuration space that the kernel shows to root alone.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from probes.json_types import JsonObject
from probes.pci_devices import read_pci_devices

_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_FIRST_EXTENDED, _CAPABILITY_ACS, _CONTROL_OFFSET = 0x100, 0x000D, 6
_CAPABILITIES_MAX = 64  # a list that goes round in circles is left
READ_BYTES = 4096
BITS = {
    0x01: "SrcValid",
    0x02: "TransBlk",
    0x04: "ReqRedir",
    0x08: "CmpltRedir",
    0x10: "UpstreamFwd",
    0x20: "EgressCtrl",
    0x40: "DirectTrans",
}  # as lspci calls them


def read_ports_above(root: Path = Path("/")) -> list[JsonObject]:
    """Return each port above a GPU or adapter: who is below it, and the bits of its ACS.

    ``control`` is None where the port has no ACS, and ``problem`` says why it could not be read.
    """
    below: dict[str, list[JsonObject]] = {}
    folders: dict[str, Path] = {}
    for device in read_pci_devices(root):
        folder = (root / "sys/bus/pci/devices" / str(device["address"])).resolve()
        for above in folder.parents:
            if _ADDRESS.fullmatch(above.name):
                below.setdefault(above.name, []).append(device)
                folders[above.name] = above
    return [_port(folders[address], below[address]) for address in sorted(below)]


def _port(folder: Path, devices: list[JsonObject]) -> JsonObject:
    said: JsonObject = {
        "address": folder.name,
        "is_root": not _ADDRESS.fullmatch(folder.parent.name),
        "above": folder.parent.name,
        "gpus": [str(device["address"]) for device in devices if device["what"] == "gpu"],
        "nics": [str(device["address"]) for device in devices if device["what"] == "nic"],
        "control": None,
        "problem": "",
    }
    try:
        space = (folder / "config").read_bytes()[:READ_BYTES]
    except OSError as error:
        return said | {"problem": str(error.strerror)}
    if len(space) <= _FIRST_EXTENDED:
        return said | {"problem": f"{len(space)} bytes of its configuration are shown; the rest is for root"}
    return said | {"control": find_acs_control(space)}


def find_acs_control(space: bytes) -> int | None:
    """Return the ACS control register in a configuration space; None: this port has none."""
    at = _FIRST_EXTENDED
    for _ in range(_CAPABILITIES_MAX):
        if at < _FIRST_EXTENDED or at + 8 > len(space):
            return None
        (header,) = struct.unpack_from("<I", space, at)
        if header & 0xFFFF == _CAPABILITY_ACS:
            return int(struct.unpack_from("<H", space, at + _CONTROL_OFFSET)[0])
        at = header >> 20
    return None


def read_iommu(root: Path = Path("/")) -> dict[str, str]:
    """Return how the IOMMU treats each GPU (``DMA`` translates, ``identity`` does not); empty: none."""
    found = {}
    for device in read_pci_devices(root):
        folder = root / "sys/bus/pci/devices" / str(device["address"])
        try:
            kind = (folder / "iommu_group/type").read_text().strip()
        except OSError:
            continue
        if device["what"] == "gpu":
            found[str(device["address"])] = kind
    return found

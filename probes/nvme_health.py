"""The health that an NVMe drive tells of itself: its SMART log, asked of the kernel directly.

That is for root. A drive that may not be asked says so; nothing is written to any.
"""

from __future__ import annotations

import ctypes
import os
from fcntl import ioctl
from pathlib import Path

from probes.json_types import JsonObject

_ADMIN_COMMAND = 0xC0484E41  # NVME_IOCTL_ADMIN_CMD of linux/nvme_ioctl.h
_GET_LOG_PAGE, _SMART_LOG, _LOG_BYTES, _ALL_NAMESPACES = 0x02, 0x02, 512, 0xFFFFFFFF
_TIMEOUT_MS = 2000


class _Command(ctypes.Structure):
    """struct nvme_admin_cmd."""

    _fields_ = [
        ("opcode", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint16),
        ("namespace", ctypes.c_uint32),
        ("word2", ctypes.c_uint32),
        ("word3", ctypes.c_uint32),
        ("metadata", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("metadata_bytes", ctypes.c_uint32),
        ("data_bytes", ctypes.c_uint32),
        ("word10", ctypes.c_uint32),
        ("word11", ctypes.c_uint32),
        ("word12", ctypes.c_uint32),
        ("word13", ctypes.c_uint32),
        ("word14", ctypes.c_uint32),
        ("word15", ctypes.c_uint32),
        ("timeout_ms", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
    ]


def read_drives(root: Path = Path("/")) -> dict[str, JsonObject]:
    """Return what each NVMe drive says of itself; one that may not be asked has a ``problem`` instead."""
    return {
        folder.name: _read(root / "dev" / folder.name)
        for folder in sorted((root / "sys/class/nvme").glob("nvme*"))
    }


def _read(device: Path) -> JsonObject:
    buffer = ctypes.create_string_buffer(_LOG_BYTES)
    command = _Command(
        opcode=_GET_LOG_PAGE,
        namespace=_ALL_NAMESPACES,
        address=ctypes.addressof(buffer),
        data_bytes=_LOG_BYTES,
        word10=_SMART_LOG | (_LOG_BYTES // 4 - 1) << 16,
        timeout_ms=_TIMEOUT_MS,
    )
    try:
        descriptor = os.open(device, os.O_RDONLY)
    except OSError as error:
        return {"problem": str(error.strerror)}
    try:
        status = ioctl(descriptor, _ADMIN_COMMAND, command)
    except OSError as error:
        return {"problem": str(error.strerror)}
    finally:
        os.close(descriptor)
    return {"problem": f"the drive answered status {status:#x}"} if status else parse_smart(buffer.raw)


def parse_smart(log: bytes) -> JsonObject:
    """Return the fields of a SMART log (NVM Express base specification, log page 02h) that rules look at."""
    return {
        "critical_warning": log[0],
        "temperature_c": int.from_bytes(log[1:3], "little") - 273,
        "spare_pct": log[3],
        "spare_pct_min": log[4],
        "used_pct": log[5],
        "media_errors": int.from_bytes(log[160:176], "little"),
        "error_entries": int.from_bytes(log[176:192], "little"),
    }

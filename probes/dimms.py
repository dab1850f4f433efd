"""The memory modules of a host: from the firmware's table where root reads it, from EDAC otherwise."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from probes.json_types import JsonObject

_ENTRIES = "sys/firmware/dmi/entries"
_SIZE_ABSENT, _SIZE_UNKNOWN, _SIZE_ELSEWHERE, _SIZE_IN_KIB = 0, 0xFFFF, 0x7FFF, 0x8000
_SPEED_UNKNOWN = (0, 0xFFFF)


def read_modules(root: Path = Path("/")) -> JsonObject:
    """Return the modules, and who said so: ``dmi``, ``edac``, or nobody, with the reason."""
    folders = sorted((root / _ENTRIES).glob("17-*"))
    texts: list[bytes] = []
    problem = "the firmware states none"
    for folder in folders:
        try:
            texts.append((folder / "raw").read_bytes())
        except OSError as error:
            problem = str(error.strerror)
    if texts and len(texts) == len(folders):
        return {"source": "dmi", "modules": [parse_module(text) for text in texts], "problem": ""}
    found = _read_edac(root)
    if found:
        return {"source": "edac", "modules": found, "problem": ""}
    return {"source": "", "modules": [], "problem": problem}


def parse_module(raw: bytes) -> JsonObject:
    """Return one memory device (SMBIOS type 17); size None: an empty slot, or one of unknown content."""
    length = raw[1]
    strings = [text.decode(errors="replace").strip() for text in raw[length:].split(b"\0")]

    def text(at: int) -> str:
        number = raw[at] if at < length else 0
        return strings[number - 1] if 0 < number <= len(strings) else ""

    def number(at: int, kind: str = "<H") -> int:
        return int(struct.unpack_from(kind, raw, at)[0]) if at + struct.calcsize(kind) <= length else 0

    size = number(0x0C)
    size_mib: int | None = number(0x1C, "<I") & 0x7FFFFFFF if size == _SIZE_ELSEWHERE else size
    if size in (_SIZE_ABSENT, _SIZE_UNKNOWN):
        size_mib = None
    elif size != _SIZE_ELSEWHERE and size & _SIZE_IN_KIB:
        size_mib = (size & 0x7FFF) // 1024
    return {
        "slot": " ".join(part for part in (text(0x11), text(0x10)) if part),
        "size_mib": size_mib,
        "is_empty": size == _SIZE_ABSENT,
        "speed_mts_max": _speed(number(0x15)),
        "speed_mts": _speed(number(0x20)),
    }


def _speed(value: int) -> int | None:
    return None if value in _SPEED_UNKNOWN else value


def _read_edac(root: Path) -> list[JsonObject]:
    """EDAC lists the modules that it found, and knows neither empty slots nor speeds."""
    found: list[JsonObject] = []
    for folder in sorted((root / "sys/devices/system/edac/mc").glob("mc*/dimm*")):
        size = _text(folder / "size")
        label = _text(folder / "dimm_label") or f"{folder.parent.name}/{folder.name}"
        empty = {"is_empty": False, "speed_mts_max": None, "speed_mts": None}
        found.append({"slot": label, "size_mib": int(size) if size.isdigit() else None, **empty})
    return found


def read_node_memory(root: Path = Path("/")) -> dict[str, int]:
    """Return the bytes of memory of each NUMA node that has processors, by its name."""
    found = {}
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        total = re.search(r"MemTotal:\s+(\d+) kB", _text(folder / "meminfo"))
        if total and _text(folder / "cpulist"):
            found[folder.name] = int(total[1]) * 1024
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

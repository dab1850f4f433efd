"""Which GPU is meant by DCGM's numbers: read from ``dcgmi discovery -l``. Standard library; it travels."""

from __future__ import annotations

import re

_ROW = re.compile(r"^\|\s*(\d*)\s*\|(.*)\|\s*$")
_UUID = re.compile(r"Device UUID:\s*(GPU-[0-9a-fA-F-]+)")
_NEXT_TABLE = "found."  # "8 GPUs found.", then "4 NvSwitches found." with numbers of their own


def read_gpu_ids(text: str) -> dict[int, str]:
    """Return UUIDs by DCGM's number; a GPU without a UUID is left out, and so never named by number alone."""
    found: dict[int, str] = {}
    is_gpus, number = False, None
    for line in text.splitlines():
        if line.strip().endswith(_NEXT_TABLE):
            is_gpus, number = bool(re.search(r"\bGPUs? found", line)), None
        row = _ROW.match(line) if is_gpus else None
        if row is None:
            continue
        if row[1]:
            number = int(row[1])
        uuid = _UUID.search(row[2])
        if uuid and number is not None:
            found[number] = uuid[1]
    return found

"""How a host is set up: what wrecks a job before any GPU does, and what explains a slow one afterwards."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from pathlib import Path

from probes.host import ROOT
from probes.json_types import JsonObject

TOOL_DEADLINE_S = 15.0


def read_setup(root: Path = ROOT) -> JsonObject:
    """Return the settings of this host; what it does not say is None."""
    return {
        "cores_online": _count_cores(root),
        "governors": sorted({_text(path) for path in _cpu(root).glob("cpu[0-9]*/cpufreq/scaling_governor")}),
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "memory_bytes": _meminfo(root, "MemTotal", 1024),
        "hugepages": _meminfo(root, "HugePages_Total", 1),
        "iommu_groups": len(list((root / "sys/kernel/iommu_groups").glob("*"))),
        "driver": _driver(root),
        "has_nvswitch": any((root / "proc/driver/nvidia-nvswitch/devices").glob("*")),
        "has_fabric_manager": _runs(root, "nv-fabricmanage"),  # the kernel keeps 15 characters
        "has_persistence_daemon": _runs(root, "nvidia-persiste"),
        "shm_bytes": _size(root / "dev/shm"),
        "memlock_bytes": _memlock(),
        "nvmes": [_nvme(folder) for folder in sorted((root / "sys/class/nvme").glob("nvme*"))],
    }


def read_tools(names: tuple[tuple[str, ...], ...]) -> list[JsonObject]:
    """Run each tool that is installed, once, and say how long it took to answer."""
    return [found for command in names if (found := _time_tool(command)) is not None]


MANAGEMENT_TOOLS = (("nvidia-smi", "-L"), ("ipmitool", "mc", "info"))


def _time_tool(command: tuple[str, ...]) -> JsonObject | None:
    """Return what came of one tool; None: it is not installed."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TOOL_DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"tool": command[0], "took_s": time.monotonic() - began, "error": str(error), "output": ""}
    said = {"error": done.stderr.strip()[:200] if done.returncode else "", "output": done.stdout[:4000]}
    return {"tool": command[0], "took_s": time.monotonic() - began, **said}


def _cpu(root: Path) -> Path:
    return root / "sys/devices/system/cpu"


def _count_cores(root: Path) -> int | None:
    """Return how many cores are online, from ranges such as ``0-63,128-191``."""
    total = 0
    for part in _text(_cpu(root) / "online").split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            total += int(last or first) - int(first) + 1
    return total or None


def _meminfo(root: Path, name: str, unit: int) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+)", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * unit if found else None


def _driver(root: Path) -> str | None:
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", _text(root / "proc/driver/nvidia/version"))
    return found[1] if found else None


def _runs(root: Path, name: str) -> bool:
    return any(_text(path).startswith(name) for path in (root / "proc").glob("[0-9]*/comm"))


def _size(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_frsize * found.f_blocks


def _memlock() -> int | None:
    """Return how much memory a process may lock; None: as much as it likes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _nvme(folder: Path) -> JsonObject:
    return {"name": folder.name, "model": _text(folder / "model"), "state": _text(folder / "state")}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

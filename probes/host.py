"""Host sensors from procfs and sysfs. Standard library only; it travels to nodes.

Each function takes the root of the file tree, so that tests can hand it another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from probes.json_types import JsonObject

ROOT = Path("/")
# Counters of a host that must not move during a burn-in. A kernel or machine without one has None there.
COUNTERS = ("edac_corrected", "edac_uncorrected", "machine_checks", "core_throttled_ms", "oom_kills")


def read_usable_cores(root: Path = ROOT) -> list[int]:
    """Return the cores that this process may use: its affinity, cut to a container's quota."""
    cores = sorted(os.sched_getaffinity(0))
    quota = read_cpu_quota(root)
    return cores if quota is None else cores[: max(1, min(len(cores), round(quota)))]


def read_cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' worth of time the control group allows; None: no limit."""
    groups = root / "sys/fs/cgroup"
    old = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")  # of cgroup v1, where -1 is no limit
    fields = _text(groups / "cpu.max").split() or [_text(groups / name).strip() for name in old]
    fields = ["max" if field == "-1" else field for field in fields]
    if "" in fields or len(fields) != 2 or fields[0] == "max":
        return None
    return int(fields[0]) / int(fields[1])


def read_processor(root: Path = ROOT) -> str:
    """Return the processor's model as the kernel names it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return found.group(1).strip() if found else os.uname().machine


def read_room(root: Path = ROOT) -> JsonObject:
    """Return what there is to work with: cores, free memory, and how busy others keep the machine."""
    meminfo = _text(root / "proc/meminfo")
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    load = _text(root / "proc/loadavg").split()
    pressure = re.search(r"some avg10=([\d.]+)", _text(root / "proc/pressure/cpu"))
    return {
        "cores": len(read_usable_cores(root)),
        "memory_available_bytes": int(available.group(1)) * 1024 if available else None,
        "load_1min": float(load[0]) if load else None,
        "cpu_pressure_pct": float(pressure.group(1)) if pressure else None,
    }


def read_counters(root: Path = ROOT) -> dict[str, int | None]:
    """Return the counters of this host; None: this machine does not have that one."""
    edac = root / "sys/devices/system/edac/mc"
    cores = root / "sys/devices/system/cpu"
    return {
        "edac_corrected": _sum(edac.glob("mc*/ce_count")),
        "edac_uncorrected": _sum(edac.glob("mc*/ue_count")),
        "machine_checks": _interrupts(root, "MCE"),
        "core_throttled_ms": _max(cores.glob("cpu[0-9]*/thermal_throttle/core_throttle_total_time_ms")),
        "oom_kills": _vmstat(root, "oom_kill"),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _values(paths: Iterable[Path]) -> list[int]:
    texts = (_text(path).strip() for path in paths)
    return [int(text) for text in texts if text.isdigit()]


def _sum(paths: Iterable[Path]) -> int | None:
    values = _values(paths)
    return sum(values) if values else None


def _max(paths: Iterable[Path]) -> int | None:
    return max(_values(paths), default=None)


def _interrupts(root: Path, name: str) -> int | None:
    found = re.search(rf"^\s*{name}:((?:\s+\d+)+)", _text(root / "proc/interrupts"), re.MULTILINE)
    return sum(int(count) for count in found.group(1).split()) if found else None


def _vmstat(root: Path, name: str) -> int | None:
    found = re.search(rf"^{name} (\d+)$", _text(root / "proc/vmstat"), re.MULTILINE)
    return int(found.group(1)) if found else None

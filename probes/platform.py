"""Where we run: on bare metal, in a virtual machine or in a container; what may be read depends on it."""

from __future__ import annotations

import re
from pathlib import Path

BARE_METAL, VIRTUAL_MACHINE, CONTAINER = "bare metal", "virtual machine", "container"
# As container runtimes name their groups; a host's own first process is in none of these.
_CONTAINER_GROUP = re.compile(r"docker|kubepods|containerd|libpod|lxc|garden|buildkit")


def read_platform(root: Path = Path("/")) -> str:
    """Return which of the three this is. A container in a virtual machine is a container."""
    if any((root / mark).exists() for mark in (".dockerenv", "run/.containerenv")):
        return CONTAINER
    environment = _text(root / "proc/1/environ")
    if "container=" in environment or _CONTAINER_GROUP.search(_text(root / "proc/1/cgroup")):
        return CONTAINER
    flags = re.search(r"^flags\s*:.*$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    is_virtual = flags is not None and " hypervisor" in flags.group(0)
    return VIRTUAL_MACHINE if is_virtual else BARE_METAL


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

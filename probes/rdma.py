"""InfiniBand and RoCE ports, from sysfs: state, rate, error counters, and which of them are for training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from probes.json_types import JsonObject

# As the kernel names them under counters/; a port that lacks one leaves it out.
COUNTERS = (
    "link_downed",
    "link_error_recovery",
    "symbol_error",
    "port_rcv_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
)
_NO_GID = "0000:0000:0000:0000:0000:0000:0000:0000"


def read_ports(root: Path = Path("/")) -> list[JsonObject]:
    """Return each port of each adapter."""
    folders = sorted((root / "sys/class/infiniband").glob("*/ports/*"))
    return [_port(folder) for folder in folders]


def _port(folder: Path) -> JsonObject:
    rate = re.match(r"([\d.]+) Gb/sec", _text(folder / "rate"))
    gids = [_text(path) for path in (folder / "gids").glob("*")]
    return {
        "adapter": folder.parent.parent.name,
        "port": int(folder.name),
        "state": _text(folder / "state").partition(": ")[2],
        "physical": _text(folder / "phys_state").partition(": ")[2],
        "rate_gbps": float(rate[1]) if rate else None,
        "layer": _text(folder / "link_layer"),
        "gids": sum(1 for gid in gids if gid and gid != _NO_GID and not gid.endswith(":0000:0000:0000:0000")),
    }


def read_port_counters(root: Path = Path("/")) -> dict[str, int]:
    """Return the error counters of every port."""
    counters = {}
    for folder in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        for name in COUNTERS:
            text = _text(folder / "counters" / name)
            if text.isdigit():
                counters[f"port/{folder.parent.parent.name}:{folder.name}/{name}"] = int(text)
    return counters


def select_adapters(selection: str, ports: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the ports that NCCL would take by ``NCCL_IB_HCA``: ``[^][=]name[:port],...``.

    A name stands for all that begin with it; ``=`` asks for the whole name, ``^`` for all but these. Nothing
    selected is every port.
    """
    is_excluding = selection.startswith("^")
    rest = selection.removeprefix("^")
    is_exact = rest.startswith("=")
    wanted = [entry for entry in rest.removeprefix("=").split(",") if entry]
    if not wanted:
        return list(ports)
    return [port for port in ports if _matches(port, wanted, is_exact=is_exact) != is_excluding]


def _matches(port: tuple[str, int], wanted: Iterable[str], *, is_exact: bool) -> bool:
    for entry in wanted:
        name, _, number = entry.partition(":")
        is_named = port[0] == name if is_exact else port[0].startswith(name)
        if is_named and (not number or number == str(port[1])):
            return True
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

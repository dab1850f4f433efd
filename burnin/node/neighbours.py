"""Which switch each adapter of this host is plugged into, as LLDP tells it, and the InfiniBand fabric.

A program of its own: it says one event and leaves. What is not installed, or does not answer, is said too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from burnin.node.lifeline import ORDER_WITHIN_S
from burnin.node.speaker import Speaker
from probes.child import read_first_line, watch_lifeline
from probes.json_types import JsonObject
from probes.rdma import read_ports, select_adapters

NEIGHBOURS = "net.neighbours"
LLDPCTL = ("lldpctl", "-f", "json0")
IBNETDISCOVER = ("ibnetdiscover",)
ANSWER_WITHIN_S = 60.0  # a large fabric takes its time
FABRIC_BYTES_MAX = 900_000  # of what goes to the controller in one line
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def main() -> None:
    """Say what this host sees, once asked."""
    line = read_first_line(within_s=ORDER_WITHIN_S)
    if not line:
        return
    watch_lifeline(lambda: os._exit(1))
    speaker, asked = Speaker("neighbours"), json.loads(line)
    said: JsonObject = {"adapters": read_adapters()}
    said |= {f"lldp_{key}": value for key, value in read_lldp().items()}
    if asked.get("fabric"):
        said |= {f"fabric_{key}": value for key, value in read_fabric().items()}
    speaker.say(NEIGHBOURS, **said)
    os._exit(0)


def read_adapters(root: Path = Path("/"), *, selection: str | None = None) -> list[JsonObject]:
    """Return the adapters that NCCL would take, in the order of rails, each with its GUID and interfaces."""
    wanted = os.environ.get("NCCL_IB_HCA", "") if selection is None else selection
    ports = [(str(port["adapter"]), int(port["port"])) for port in read_ports(root)]
    found = []
    for name, port in in_rail_order(select_adapters(wanted, ports)):
        folder = root / "sys/class/infiniband" / name
        try:
            guid = (folder / "node_guid").read_text().strip().replace(":", "")
        except OSError:
            guid = ""
        interfaces = sorted(path.name for path in (folder / "device/net").glob("*"))
        found.append({"adapter": name, "port": port, "guid": guid, "interfaces": interfaces})
    return found


def in_rail_order(adapters: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return adapters by number, as rails are counted: mlx5_2 comes before mlx5_10."""
    return sorted(
        adapters,
        key=lambda one: ([int(part) if part.isdigit() else 0 for part in re.split(r"(\d+)", one[0])], one),
    )


def read_lldp(command: Sequence[str] = LLDPCTL) -> JsonObject:
    """Return the neighbours that lldpd has heard of, or why they cannot be told."""
    text, error = _run(command)
    if error:
        return {"error": error}
    try:
        return {"neighbours": parse_lldp(text)}
    except (ValueError, KeyError, IndexError, TypeError) as wrong:
        return {"error": f"{command[0]}: what it printed is not understood: {str(wrong)[:200]}"}


def parse_lldp(text: str) -> list[JsonObject]:
    """Return interface, switch and port of each neighbour in the output of ``lldpctl -f json0``.

    Raises:
        ValueError: it is no such output.
    """
    found = []
    for part in json.loads(text)["lldp"]:
        for interface in part.get("interface", []):
            chassis, port = interface["chassis"][0], interface["port"][0]
            found.append(
                {
                    "interface": str(interface["name"]),
                    "switch": _first(chassis, "name") or _first(chassis, "id"),
                    "port": _first(port, "descr") or _first(port, "id"),
                }
            )
    return found


def _first(fields: JsonObject, name: str) -> str:
    values = fields.get(name) or [{}]
    return str(values[0].get("value", ""))


def read_fabric() -> JsonObject:
    """Return what ibnetdiscover prints of the InfiniBand fabric, or why it cannot be told."""
    text, error = _run(IBNETDISCOVER)
    if error:
        return {"error": error}
    if len(text) > FABRIC_BYTES_MAX:
        lines = [line for line in text.splitlines() if line.startswith(("Ca", "[", "Switch", "caguid"))]
        text = "\n".join(lines)
    if len(text) > FABRIC_BYTES_MAX:
        return {"error": f"ibnetdiscover: {len(text)} bytes are more than fit here"}
    return {"text": text}


def _run(command: Sequence[str]) -> tuple[str, str]:
    """Return what a command printed, and why it did not."""
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        return "", f"{command[0]} is not installed"
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"{command[0]}: no answer within {ANSWER_WITHIN_S:.0f} s"
    if done.returncode != 0:
        why = done.stderr.strip().rpartition("] ")[2]  # without the time and level of its log
        return "", f"{command[0]}: {why[-200:] or f'exit code {done.returncode}'}"
    return done.stdout, ""


if __name__ == "__main__":
    main()

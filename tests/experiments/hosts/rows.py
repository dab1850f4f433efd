"""How each fault is met on a real host: one row each. Every fault has to have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probes.child import wait_until
from probes.json_types import JsonObject
from tests.experiments.hosts.real_hosts import start_program
from tests.ssh_hosts import SshHost


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault on one host, which has a link data0 beside the one that carries us."""

    arrange: Callable[[SshHost], JsonObject]  # what is to be hit; returns the fault's arguments
    observe: Callable[[SshHost], object]  # other while the fault is there, and afterwards as it was
    setup: str = ""  # shell lines that the host runs before its sshd


def _sleeping(host: SshHost) -> JsonObject:
    start_program(host, "exec sleep 70001")
    assert wait_until(lambda: "70001" in host.run("ps", "-eo", "args"), timeout_s=5)
    return {"pattern": "^sleep 70001"}


def _states(host: SshHost) -> list[str]:
    """Return the state of each such process, not who it is."""
    lines = host.run("ps", "-eo", "state,args").splitlines()
    return [line.split()[0].replace("R", "S") for line in lines if "sleep 70001" in line]


def _link(host: SshHost) -> list[str]:
    shown = host.run("ip", "-o", "addr", "show", "dev", "data0", "scope", "global").splitlines()
    routes = host.run("ip", "route", "show", "dev", "data0").splitlines()
    routes += host.run("ip", "-6", "route", "show", "dev", "data0").splitlines()
    is_up = "UP" in host.run("ip", "-o", "link", "show", "dev", "data0").split("<")[1].split(">")[0].split(
        ","
    )
    return sorted([line.split()[3] for line in shown] + routes + [f"up: {is_up}"])


def _disk(host: SshHost) -> list[str]:
    free = host.run("stat", "-f", "-c", "%f", f"{host.folder}/small")
    return [free, host.run("ls", "-A", f"{host.folder}/small")]


ROWS = {
    "process.kill": Row(
        arrange=lambda host: _sleeping(host) | {"restart": ["sleep", "70001"]}, observe=_states
    ),
    "process.stop": Row(arrange=_sleeping, observe=_states),
    "link.down": Row(arrange=lambda _: {"interface": "data0"}, observe=_link),
    "network.blackhole": Row(
        arrange=lambda _: {"addresses": ["10.78.0.0/16"]},
        observe=lambda host: host.run("nft", "list", "tables"),
    ),
    "network.bandwidth": Row(
        arrange=lambda _: {"interface": "data0", "rate_mbit": 10},
        observe=lambda host: host.run("tc", "qdisc", "show", "dev", "data0"),
    ),
    "disk.full": Row(
        arrange=lambda host: {"folder": f"{host.folder}/small", "leave_bytes": 100_000},
        observe=_disk,
        setup="mkdir {folder}/small\nmount -t tmpfs -o size=4m tmpfs {folder}/small\n",
    ),
}

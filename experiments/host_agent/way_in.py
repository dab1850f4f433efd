"""The way in: the connection over which we were started, which no fault may cut unless asked for by name."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.host_agent.fault import run_command

_VARIABLE = "SSH_CONNECTION"


@dataclass(frozen=True)
class WayIn:
    """One SSH connection, as sshd tells those whom it starts."""

    peer: str
    peer_port: int
    own: str
    own_port: int


def read_way_in(environment: Mapping[str, str] | None = None) -> WayIn | None:
    """Return the connection that started us; None: it was none of SSH."""
    words = (os.environ if environment is None else environment).get(_VARIABLE, "").split()
    if len(words) != 4:
        return None
    return WayIn(peer=words[0], peer_port=int(words[1]), own=words[2], own_port=int(words[3]))


def interface_of(way: WayIn) -> str:
    """Return the interface that the kernel sends its packets through; empty: nobody can tell."""
    status, said = run_command(["ip", "-o", "route", "get", way.peer])
    words = said.split()
    return words[words.index("dev") + 1] if status == 0 and "dev" in words[:-1] else ""


def is_in(address: str, networks: list[str]) -> bool:
    """Say whether an address lies in one of these networks; IPv4 written as IPv6 counts as IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    plain = getattr(found, "ipv4_mapped", None) or found
    return any(plain in ipaddress.ip_network(network, strict=False) for network in networks)

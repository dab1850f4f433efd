"""A black hole in the network: nftables drops what goes to or comes from some addresses, ports or interface.

All of it lies in a table of our own, so that undoing removes that table and touches no rule of anybody else.
Dropped, not refused: nobody is told, as with a dead switch. Packets of RDMA do not pass nftables.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from experiments.host_agent.fault import Refused, run_command
from experiments.host_agent.way_in import WayIn, interface_of, is_in, read_way_in

_FAMILY = "inet"
# Before the site's own filters (priority 0): none of them may accept first, and none sees these packets.
_PRIORITY = -150
_PROTOCOLS = ("tcp", "udp")
_DIRECTIONS = ("both", "in", "out")
_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")


@dataclass(frozen=True)
class Blackhole:
    """Drops packets named by ``addresses``, ``ports`` (on either end), ``interface``; all given must match.

    ``direction`` is both, in or out; ``protocol`` tcp or udp, else both; ``may_cut_ssh`` allows our way in.
    """

    name: str = "network.blackhole"
    nft: str = "nft"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        status, said = run_command([self.nft, "list", "tables"])
        if status == 127:
            return ["nft is not installed (package nftables)"]
        return [] if status == 0 else [f"nft cannot be used here: {said}"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what will be dropped, and the name of the table that will hold it."""
        chosen = _selection(arguments)
        state = chosen | {
            "table": f"overproof_{secrets.token_hex(6)}",
            "subject": f"network:{_words(chosen)}",
        }
        _refuse_way_in(state)
        return state

    def inject(self, state: dict[str, Any]) -> None:
        """Load all rules in one transaction."""
        _refuse_way_in(state)
        status, said = run_command([self.nft, "-f", "-"], given=_ruleset(state))
        if status:
            raise Refused(f"nft did not take the rules: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See that the kernel holds every one of the rules, and say what they have dropped so far."""
        counters = self._counters(state)
        if counters is None:
            return False, f"there is no table {state['table']}"
        wanted = _ruleset(state).count(" drop")
        said = f"{len(counters)} of {wanted} rules drop {_words(state)}; {sum(counters)} packets so far"
        return len(counters) == wanted, said

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Remove that table, if it is there."""
        table = state["table"]
        if self._is_absent(table):
            return True, f"nothing to do: there is no table {table}", False
        _, said = run_command([self.nft, "delete", "table", _FAMILY, table])
        if self._is_absent(table):
            return True, f"removed table {table}", True
        return False, f"table {table} could not be removed: {said}", True

    def _is_absent(self, table: str) -> bool:
        status, said = run_command([self.nft, "list", "tables"])
        return status == 0 and f"table {_FAMILY} {table}" not in said.splitlines()

    def _counters(self, state: dict[str, Any]) -> list[int] | None:
        """Return the packets that each dropping rule has seen; None: there is no such table."""
        status, said = run_command([self.nft, "-j", "list", "table", _FAMILY, state["table"]])
        if status:
            return None
        rules = [item["rule"]["expr"] for item in json.loads(said)["nftables"] if "rule" in item]
        dropping = [rule for rule in rules if any("drop" in part for part in rule)]
        return [part["counter"]["packets"] for rule in dropping for part in rule if "counter" in part]


def _selection(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the selection, checked word by word: it becomes part of a rule file."""
    try:
        addresses = [
            str(ipaddress.ip_network(str(a), strict=False)) for a in arguments.get("addresses") or []
        ]
    except ValueError as error:
        raise Refused(f"addresses: {error}") from error
    ports = [int(port) for port in arguments.get("ports") or []]
    interface = str(arguments.get("interface") or "")
    direction, protocol = str(arguments.get("direction", "both")), str(arguments.get("protocol") or "")
    if not (addresses or ports or interface):
        raise Refused("nothing is named to be dropped: give addresses, ports or an interface")
    if any(ipaddress.ip_network(address).prefixlen == 0 for address in addresses):
        raise Refused("addresses: a network of all addresses is no selection; name an interface instead")
    if not all(0 < port < 65536 for port in ports):
        raise Refused(f"ports: wanted 1 to 65535, got {ports}")
    if interface and not _INTERFACE.fullmatch(interface):
        raise Refused(f"interface: {interface!r} is no name of one")
    if interface and run_command(["ip", "-o", "link", "show", "dev", interface])[0]:
        raise Refused(f"interface: there is no {interface}")
    if direction not in _DIRECTIONS or protocol not in ("", *_PROTOCOLS):
        raise Refused(f"direction is one of {_DIRECTIONS}, protocol one of {_PROTOCOLS}")
    return {
        "addresses": addresses,
        "ports": ports,
        "interface": interface,
        "direction": direction,
        "protocol": protocol,
        "may_cut_ssh": arguments.get("may_cut_ssh") is True,
    }


def _words(state: dict[str, Any]) -> str:
    parts = [
        ",".join(state["addresses"]),
        "port " + ",".join(map(str, state["ports"])) if state["ports"] else "",
        f"on {state['interface']}" if state["interface"] else "",
        state["protocol"],
        f"{state['direction']} only" if state["direction"] != "both" else "",
    ]
    return " ".join(filter(None, parts))


def _ruleset(state: dict[str, Any]) -> str:
    """Return the file for nft. ``create`` fails where the table is there: nothing is injected twice."""
    lines = [f"create table {_FAMILY} {state['table']}"]
    for hook, interface, address in (
        ("input", "iifname", "saddr"),
        ("output", "oifname", "daddr"),
        ("forward", "iifname", "saddr"),  # containers and virtual machines lie behind these two
        ("forward", "oifname", "daddr"),
    ):
        if state["direction"] == ("out" if address == "saddr" else "in"):
            continue
        chain = f"{_FAMILY} {state['table']} {hook}"
        hooked = f"{{ type filter hook {hook} priority {_PRIORITY}; policy accept; }}"
        lines.append(f"add chain {chain} {hooked}")
        lines += [f"add rule {chain} {rule} counter drop" for rule in _matches(state, interface, address)]
    return "\n".join(lines) + "\n"


def _matches(state: dict[str, Any], interface: str, address: str) -> list[str]:
    on = [f'{interface} "{state["interface"]}"'] if state["interface"] else []
    ends = [[part] for part in _addresses(state["addresses"], address)] or [[]]
    ports = ", ".join(map(str, state["ports"]))
    protocols = state["protocol"] or ", ".join(_PROTOCOLS)
    over = [f"meta l4proto {{ {protocols} }}"] if ports or state["protocol"] else []
    sides = [[f"th {side} {{ {ports} }}"] for side in ("sport", "dport")] if ports else [[]]
    return [" ".join([*on, *end, *over, *side]) for end in ends for side in sides]


def _addresses(networks: list[str], address: str) -> list[str]:
    """Return one match per family of addresses."""
    found = []
    for family, version in (("ip", 4), ("ip6", 6)):
        chosen = [network for network in networks if ipaddress.ip_network(network).version == version]
        if chosen:
            found.append(f"{family} {address} {{ {', '.join(chosen)} }}")
    return found


def _refuse_way_in(state: dict[str, Any]) -> None:
    way = read_way_in()
    if state["may_cut_ssh"] or (way is not None and not _cuts(state, way)):
        return
    why = "nobody can tell our own way in" if way is None else f"that is our own way in, SSH from {way.peer}"
    raise Refused(f"{_words(state)}: {why}; say may_cut_ssh: true if that is meant")


def _cuts(state: dict[str, Any], way: WayIn) -> bool:
    """Say whether the connection would suffer; where that cannot be told it would."""
    if state["protocol"] == "udp":
        return False
    if state["addresses"] and not is_in(way.peer, state["addresses"]):
        return False
    if state["ports"] and not {way.peer_port, way.own_port} & set(state["ports"]):
        return False
    return not state["interface"] or interface_of(way) in ("", state["interface"])


BLACKHOLE = Blackhole()

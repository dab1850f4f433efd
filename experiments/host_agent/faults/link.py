"""Taking an interface down. With it go its routes and, of IPv6, its addresses: undoing puts them back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.host_agent.fault import Refused, run_command
from experiments.host_agent.way_in import interface_of, read_way_in
from probes.child import wait_until

_NET = Path("/sys/class/net")
_IS_UP = 1  # IFF_UP
_BACK_WITHIN_S = 15.0
_FAMILIES = ("-4", "-6")
# What the kernel makes by itself for each address, and what routers announce.
_BY_THEMSELVES = ("local", "broadcast", "anycast", "multicast", "unreachable")
_NOT_WORDS = ("linkdown", "dead")


def is_up(interface: str) -> bool:
    """Say whether an interface is switched on; one that is not there is not."""
    try:
        return bool(int((_NET / interface / "flags").read_text(), 16) & _IS_UP)
    except OSError:
        return False


def oper_state(interface: str) -> str:
    """Return what the kernel says of its carrier: up, down, unknown; empty: it is not there."""
    try:
        return (_NET / interface / "operstate").read_text().strip()
    except OSError:
        return ""


def stack_below(interface: str) -> set[str]:
    """Return an interface and all that it rests on: members of a bond or a bridge, the parent of a VLAN."""
    found, todo = set(), [interface]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [path.name.removeprefix("lower_") for path in (_NET / name).glob("lower_*")]
    return found


def carries_us(interface: str) -> str:
    """Say why an interface carries our own connection, or may; empty: it does not."""
    way = read_way_in()
    if way is None:
        return "nobody can tell which interface carries our connection"
    carrier = interface_of(way)
    if not carrier:
        return "nobody can tell which interface carries our connection"
    own = run_command(["ip", "-o", "addr", "show", "to", way.own])[1].split()
    carriers = stack_below(carrier) | (stack_below(own[1].partition("@")[0]) if len(own) > 1 else set())
    return f"our own connection, SSH from {way.peer}, comes through it" if interface in carriers else ""


def routes_of(interface: str) -> list[list[str]]:
    """Return the routes through an interface that somebody made, each as the words that make it again."""
    found = []
    for family in _FAMILIES:
        _, said = run_command(["ip", family, "route", "show", "table", "all", "dev", interface])
        for line in said.splitlines():
            words = [word for word in line.split() if word not in _NOT_WORDS]
            if not words or words[0] in _BY_THEMSELVES or "kernel" in words or "ra" in words:
                continue
            if "expires" in words:
                at = words.index("expires")
                del words[at : at + 2]
            found.append([family, *words])
    return found


def addresses_of(interface: str) -> list[str]:
    """Return its addresses that somebody gave it, with their lengths."""
    _, said = run_command(["ip", "-o", "addr", "show", "dev", interface, "scope", "global"])
    lines = [line.split() for line in said.splitlines()]
    return [words[3] for words in lines if len(words) > 3 and "dynamic" not in words]


@dataclass(frozen=True)
class LinkDown:
    """``ip link set … down``. Takes ``interface``; ``may_cut_ssh`` allows our own way in."""

    name: str = "link.down"

    def missing(self, arguments: dict[str, Any]) -> list[str]:
        """Say what must be there and is not."""
        del arguments
        return [] if run_command(["ip", "-V"])[0] == 0 else ["ip is not installed (package iproute2)"]

    def capture(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the interface with its addresses and routes."""
        interface, may_cut = str(arguments.get("interface") or ""), arguments.get("may_cut_ssh") is True
        if not interface or "/" in interface or not (_NET / interface).exists():
            there = ", ".join(sorted(path.name for path in _NET.iterdir() if path.name != "lo"))
            raise Refused(f"interface: {interface!r} is not there; there are: {there or 'none'}")
        if interface == "lo":
            raise Refused("interface: lo carries the host's own services to each other")
        if not is_up(interface):
            raise Refused(f"interface: {interface} is down already")
        state = {
            "subject": f"link:{interface}",
            "identity": {
                "interface": interface,
                "index": int((_NET / interface / "ifindex").read_text()),
                "hardware_address": (_NET / interface / "address").read_text().strip(),
            },
            "interface": interface,
            "oper_state": oper_state(interface),
            "addresses": addresses_of(interface),
            "routes": routes_of(interface),
            "may_cut_ssh": may_cut,
        }
        self._refuse_way_in(state)
        return state

    def _refuse_way_in(self, state: dict[str, Any]) -> None:
        if not state["may_cut_ssh"] and (why := carries_us(state["interface"])):
            raise Refused(
                f"{state['interface']}: {why}; say may_cut_ssh: true if that is meant: then only the "
                "timer on the host puts it back"
            )

    def inject(self, state: dict[str, Any]) -> None:
        """Switch it off."""
        self._refuse_way_in(state)
        status, said = run_command(["ip", "link", "set", "dev", state["interface"], "down"])
        if status:
            raise Refused(f"{state['interface']}: {said}")

    def verify(self, state: dict[str, Any]) -> tuple[bool, str]:
        """See in sysfs that it is off."""
        name = state["interface"]
        is_down = (_NET / name).exists() and not is_up(name)
        return (
            is_down,
            f"{name} is {'up' if is_up(name) else 'down'}, its carrier {oper_state(name) or 'gone'}",
        )

    def undo(self, state: dict[str, Any]) -> tuple[bool, str, bool]:
        """Switch it on, and give it what it has lost."""
        name = state["interface"]
        if not (_NET / name).exists():
            return False, f"there is no {name} any more", False
        did = []
        if not is_up(name):
            did.append(f"{name} up: {run_command(['ip', 'link', 'set', 'dev', name, 'up'])[1] or 'done'}")
        for address in _lacking(state["addresses"], addresses_of(name)):
            did.append(f"address {address}")
            run_command(["ip", "addr", "replace", address, "dev", name])
        wait_until(lambda: oper_state(name) == state["oper_state"], timeout_s=_BACK_WITHIN_S, interval_s=0.05)
        for family, *words in _lacking(state["routes"], routes_of(name)):
            did.append(f"route {' '.join(words)}")
            run_command(["ip", family, "route", "replace", *words, "dev", name])
        wrong = self._wrong(state)
        return not wrong, "; ".join([*(did or ["nothing to do"]), *wrong]), bool(did)

    def _wrong(self, state: dict[str, Any]) -> list[str]:
        name = state["interface"]
        wrong = [] if is_up(name) else [f"{name} is still down"]
        if oper_state(name) != state["oper_state"]:
            wrong.append(f"its carrier was {state['oper_state']}, is {oper_state(name)}")
        wrong += [f"address {a} is missing" for a in _lacking(state["addresses"], addresses_of(name))]
        return wrong + [
            f"route {' '.join(r[1:])} is missing" for r in _lacking(state["routes"], routes_of(name))
        ]


def _lacking(wanted: list[Any], there: list[Any]) -> list[Any]:
    return [each for each in wanted if each not in there]


DOWN = LinkDown()

"""Cables against the plan: which switch each rail of a host ends at, as LLDP and InfiniBand see it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnin.fleet.host import Host
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

CABLING = "net.cabling"  # an event for each host that was asked
_CA = re.compile(r'^Ca\s+\d+\s+"H-([0-9a-f]{16})"')
_SWITCH_LINE = re.compile(r"^(?:vendid|Switch|switchguid|Rt)")
_LINK = re.compile(r'^\[(\d+)\](?:\([0-9a-f]+\))?\s+"S-[0-9a-f]{16}"\[(\d+)\].*?#.*?"([^"]*)"')
_DESCRIPTION = re.compile(r"^(?:[^;]*;)?([^:;/]+)")  # "MF0;leaf-1-0:MQM9790/U1" is leaf-1-0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """Where one adapter is plugged in."""

    adapter: str
    switch: str
    port: str
    source: str  # "LLDP" or "InfiniBand"


def parse_fabric(text: str) -> dict[tuple[str, int], tuple[str, str]]:
    """Return, by GUID and port of each host adapter, the switch and its port, from ibnetdiscover's output.

    The blocks of the adapters are read; those of the switches show the same links from the other end.
    """
    found: dict[tuple[str, int], tuple[str, str]] = {}
    guid = ""
    for line in text.splitlines():
        if adapter := _CA.match(line):
            guid = adapter.group(1)
        elif _SWITCH_LINE.match(line):
            guid = ""
        elif guid and (link := _LINK.match(line)):
            name = _DESCRIPTION.match(link.group(3))
            found[guid, int(link.group(1))] = (name.group(1) if name else link.group(3), link.group(2))
    return found


def links_to_json(
    told: JsonObject, fabric: Mapping[tuple[str, int], tuple[str, str]]
) -> dict[str, list[str]]:
    """Return the links of one host's adapters as plain JSON values, for the record."""
    ends = [(str(adapter["guid"]), int(adapter["port"])) for adapter in told.get("adapters") or ()]
    return {f"{guid}/{port}": list(fabric[guid, port]) for guid, port in ends if (guid, port) in fabric}


def links_from_json(links: Mapping[str, Sequence[str]]) -> dict[tuple[str, int], tuple[str, str]]:
    """Read them back."""
    return {
        (end.partition("/")[0], int(end.partition("/")[2])): (str(link[0]), str(link[1]))
        for end, link in links.items()
    }


def find_plugs(told: JsonObject, fabric: Mapping[tuple[str, int], tuple[str, str]]) -> list[Plug | None]:
    """Return where each adapter of a host is plugged in, in the order of the rails; None: nobody tells."""
    heard = {str(one["interface"]): one for one in told.get("lldp_neighbours") or ()}
    plugs: list[Plug | None] = []
    for adapter in told.get("adapters") or ():
        name = str(adapter["adapter"])
        neighbour = next((heard[each] for each in adapter["interfaces"] if each in heard), None)
        link = fabric.get((str(adapter["guid"]), int(adapter["port"])))
        if link is not None:
            plugs.append(Plug(adapter=name, switch=link[0], port=link[1], source="InfiniBand"))
        elif neighbour is not None:
            switch, port = str(neighbour["switch"]), str(neighbour["port"])
            plugs.append(Plug(adapter=name, switch=switch, port=port, source="LLDP"))
        else:
            plugs.append(None)
    return plugs


def is_same_switch(seen: str, planned: str) -> bool:
    """Whether a switch's own name is that of the plan; one of them may lack its domain."""
    one, other = seen.strip().lower(), planned.strip().lower()
    return one == other or (one.split(".")[0] == other.split(".")[0] and ("." not in one or "." not in other))


def judge_cabling(
    host: Host, told: JsonObject | None, fabric: Mapping[tuple[str, int], tuple[str, str]]
) -> Finding:
    """Fail a host with an adapter in another switch than planned; what cannot be seen is undecided.

    ``told`` is what the host said of its neighbours; None: it said nothing.
    """
    plan = host.place.rails
    plugs = find_plugs(told or {}, fabric)
    if not plan and host.place.switch:
        plan = (host.place.switch,) * max(len(plugs), 1)
    if not plan:
        return _finding(host, None, "the fleet file names no switch for this host", plan, plugs)
    if told is not None and host.place.switch and not plugs and told.get("lldp_neighbours"):
        return _judge_interfaces(host, host.place.switch, told["lldp_neighbours"])
    errors = [str((told or {}).get(f"{kind}_error", "")) for kind in ("lldp", "fabric")]
    why = "; ".join(error for error in errors if error)
    if told is None or not plugs:
        return _finding(host, Outcome.INCONCLUSIVE, why or "no adapter is seen", plan, plugs)
    wrong = [
        f"rail {rail} ({plug.adapter}) ends at {plug.switch} port {plug.port}, planned is {planned}"
        + _where_else(plug.switch, plan)
        for rail, (plug, planned) in enumerate(zip(plugs, plan, strict=False))
        if plug is not None and not is_same_switch(plug.switch, planned)
    ]
    unseen = [str(rail) for rail in range(len(plan)) if rail >= len(plugs) or plugs[rail] is None]
    if wrong:
        return _finding(host, Outcome.FAIL, "; ".join(wrong), plan, plugs)
    if unseen:
        observed = f"rail {', '.join(unseen)} is not seen{f' ({why})' if why else ''}"
        return _finding(host, Outcome.INCONCLUSIVE, observed, plan, plugs)
    return _finding(host, Outcome.PASS, f"{len(plan)} adapters end where they should", plan, plugs)


def _judge_interfaces(host: Host, planned: str, neighbours: Sequence[JsonObject]) -> Finding:
    """Without RDMA adapters it is not known which interface is for the work: one at its switch is enough."""
    plugs = [
        Plug(adapter=str(n["interface"]), switch=str(n["switch"]), port=str(n["port"]), source="LLDP")
        for n in neighbours
    ]
    right = [plug for plug in plugs if is_same_switch(plug.switch, planned)]
    seen = ", ".join(f"{plug.adapter} at {plug.switch} port {plug.port}" for plug in right or plugs)
    return _finding(host, Outcome.PASS if right else Outcome.FAIL, seen, (planned,), plugs)


def _where_else(switch: str, plan: Sequence[str]) -> str:
    """Say of which other rail this switch is: two cables that were swapped show as each other's."""
    rails = [str(rail) for rail, planned in enumerate(plan) if is_same_switch(switch, planned)]
    return f" (that is the switch of rail {', '.join(rails)})" if rails else ""


def _finding(
    host: Host, outcome: Outcome | None, observed: str, plan: Sequence[str], plugs: Sequence[Plug | None]
) -> Finding:
    steps = {
        Outcome.FAIL: "move the cables to where the plan has them, or correct the plan",
        Outcome.INCONCLUSIVE: "run lldpd on host and switch (or install infiniband-diags), then run it again",
    }
    seen = [None if plug is None else f"{plug.switch} port {plug.port} ({plug.source})" for plug in plugs]
    return Finding(
        rule="cabling",
        subject=f"host:{host.name}",
        outcome=outcome,
        observed=observed,
        expected=f"each rail at its switch: {', '.join(plan)}" if plan else "a plan of switches",
        evidence={"plan": list(plan), "seen": seen},
        next_step=steps.get(outcome, "") if outcome is not None else "",
    )

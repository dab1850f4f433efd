"""What has to be so on the hosts of a plan before it may be carried out, as they say themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.hosts.host import Host
from experiments.hosts.session import answer_or_none
from experiments.injecting.permission import Condition


def look_at_hosts(
    hosts: Sequence[Host], faults: Mapping[str, Sequence[str]], *, run: str = ""
) -> list[Condition]:
    """Look at each host that would be hit: its owner allows these faults, and nobody else works there."""
    found = []
    for host in hosts:
        if host.name not in faults:
            continue
        answer = answer_or_none(host, "look", faults=list(dict.fromkeys(faults[host.name])), run=run)
        if isinstance(answer, str):
            found.append(Condition(name=f"{host.name} answers", is_met=False, observed=answer))
            continue
        allowed, taken = str(answer["not_allowed"]), str(answer["taken"])
        marked = f"by {host.folder}/gameday-allowed on it"
        found.append(Condition(name=f"{host.name} allows it", is_met=not allowed, observed=allowed or marked))
        found.append(
            Condition(name=f"{host.name} is free", is_met=not taken, observed=taken or "no other game day")
        )
    return found

"""What every host of a target looks like at one moment."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.hosts.host import Host
from experiments.hosts.session import answer_or_none
from probes.json_types import JsonObject


def see_hosts(hosts: Sequence[Host]) -> list[JsonObject]:
    """Return one row a host: its boot, or why it did not answer."""
    rows = []
    for host in hosts:
        answer = answer_or_none(host, "look")
        is_silent = isinstance(answer, str)
        boot_id = None if isinstance(answer, str) else answer["boot_id"]
        rows.append({"name": host.name, "boot_id": boot_id, "observed": answer if is_silent else "answers"})
    return rows

"""Asks whoever the fleet file names whether its hosts are free; who does not answer permits nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from burnin.fleet.host import Fleet
from burnin.fleet.permission import Permission, ask_kubernetes, ask_slurm, with_permission
from probes.kubernetes_api import connect_api


def ask_permission(fleet: Fleet) -> Fleet:
    """Return the fleet with what was said of its hosts.

    Raises:
        ConfigError: no cluster is configured here that could be asked.
        TargetError: somebody who was to be asked does not answer.
    """
    hosts = fleet.hosts
    for name, ask in _ASKED.items():
        asked = [host.name for host in hosts if host.ask == name]
        if asked:
            hosts = with_permission(hosts, ask(asked))
    return replace(fleet, hosts=hosts)


_ASKED: dict[str, Callable[[Sequence[str]], Mapping[str, Permission]]] = {
    "slurm": ask_slurm,
    "kubernetes": lambda names: ask_kubernetes(names, connect_api()),
    "kubernetes-idle": lambda names: ask_kubernetes(names, connect_api(), is_idle_enough=True),
}

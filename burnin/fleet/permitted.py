"""Asks whoever the fleet file names whether its hosts are free; who does not answer permits nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from burnin.fleet.host import Fleet
from burnin.fleet.permission import Permission, ask_kubernetes, ask_slurm, with_permission
from probes.errors import TargetError


def ask_permission(fleet: Fleet) -> Fleet:
    """Return the fleet with what was said of its hosts.

    Raises:
        TargetError: somebody who was to be asked does not answer.
    """
    hosts = fleet.hosts
    for name, ask in _ASKED.items():
        asked = [host.name for host in hosts if host.ask == name]
        if asked:
            hosts = with_permission(hosts, ask(asked))
    return replace(fleet, hosts=hosts)


def _ask_kubernetes(names: Sequence[str], *, is_idle_enough: bool = False) -> Mapping[str, Permission]:
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    try:
        config.load_config()  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise TargetError(f"Kubernetes: no cluster is configured here: {error}") from error
    return ask_kubernetes(names, client.CoreV1Api(), is_idle_enough=is_idle_enough)


_ASKED: dict[str, Callable[[Sequence[str]], Mapping[str, Permission]]] = {
    "slurm": ask_slurm,
    "kubernetes": _ask_kubernetes,
    "kubernetes-idle": lambda names: _ask_kubernetes(names, is_idle_enough=True),
}

"""Which hosts of a target an action hits: named, or so many, chosen by seed."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from experiments.chaos.run_context import RUN_VARIABLE
from experiments.faults.fault import FaultRefused
from experiments.hosts.host import Host, host_from_json
from probes.errors import ConfigError
from probes.ssh_config import find_route, load_ssh_config
from reports.run import load_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The hosts that may be hit, and by what choice."""

    hosts: tuple[Host, ...]
    seed: int
    run: str  # names this game day on the hosts; two of them are never at work on one


_looked_at: ContextVar[Target | None] = ContextVar("looked_at", default=None)


@contextlib.contextmanager
def aiming_at(target: Target) -> Iterator[None]:
    """Within it actions choose from these hosts, as where a plan is made and there is no run yet."""
    token = _looked_at.set(target)
    try:
        yield
    finally:
        _looked_at.reset(token)


def target_now() -> Target:
    """Return the target of the game day that we are part of.

    Raises:
        ConfigError: there is none: nobody has said which hosts may be hit.
    """
    if (looked_at := _looked_at.get()) is not None:
        return looked_at
    folder = os.environ.get(RUN_VARIABLE)
    if not folder:
        raise ConfigError(
            "no hosts are named: run this experiment by `overproof gameday run`, or under chaos run with the "
            "control experiments.controls; nothing is injected"
        )
    header = load_run(Path(folder)).header
    hosts = tuple(host_from_json(row) for row in header.spec.get("hosts", ()))
    return Target(hosts=hosts, seed=header.seed, run=Path(folder).name)


def choose(target: Target, *, host: str, hosts: Sequence[str], count: int) -> list[Host]:
    """Return the hosts to hit.

    Raises:
        FaultRefused: there is no such host, too few, or one that is the way to another.
    """
    known = {each.name: each for each in target.hosts}
    names = [*([host] if host else []), *hosts]
    if unknown := [name for name in names if name not in known]:
        raise FaultRefused(f"{', '.join(unknown)}: no host of the target, which has {', '.join(known)}")
    if not names:
        if not 0 < count <= len(known):
            raise FaultRefused(f"count: wanted 1 to {len(known)}, got {count}")
        names = sorted(random.Random(target.seed).sample(sorted(known), count))
    chosen = [known[name] for name in dict.fromkeys(names)]
    _refuse_ways(chosen, target.hosts)
    return chosen


def _refuse_ways(chosen: Sequence[Host], hosts: Sequence[Host]) -> None:
    """Refuse a host through which another one is reached: we would not come back to that one."""
    config = load_ssh_config()
    routes = {each.name: find_route(each.to_target(), config) for each in hosts}
    for victim in chosen:
        own = {victim.name, routes[victim.name].address}
        for name, route in routes.items():
            hops = {hop.rpartition("@")[2].partition(":")[0] for hop in route.jumps}
            if name != victim.name and own & hops:
                raise FaultRefused(f"{victim.name}: is the way to {name} (ProxyJump); choose another host")

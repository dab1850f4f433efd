"""Which cluster the actions of a game day hit, and the one that the plan has pinned."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from experiments.chaos.run_context import RUN_VARIABLE
from experiments.faults.fault import FaultRefused
from experiments.injecting.bounds import read_plan
from experiments.kube.client import KubeClient, connect, connect_to
from experiments.kube.cluster import Cluster, Identity, cluster_from_json
from probes.errors import ConfigError
from reports.run import load_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What may be hit, and by what choice."""

    name: str  # of the target
    cluster: Cluster
    seed: int
    run: str  # names this game day on what it changes
    uid: str = ""  # of the cluster, as planned; empty: this is the planning

    def reach(self) -> tuple[KubeClient, Identity]:
        """Return the client of the cluster, once that has said which it is.

        Raises:
            TargetError: it does not answer, or another one answers in its place.
        """
        client = connect_to(self.cluster, self.uid) if self.uid else connect(self.cluster)
        return client, client.identity()

    def namespaces(self, wanted: str) -> list[str]:
        """Return the namespaces that an action may choose from.

        Raises:
            FaultRefused: it names another.
        """
        if wanted and wanted not in self.cluster.namespaces:
            raise FaultRefused(
                f"namespace {wanted}: none of the target's, which are {', '.join(self.cluster.namespaces)}"
            )
        return [wanted] if wanted else [*self.cluster.namespaces]


_looked_at: ContextVar[Aim | None] = ContextVar("looked_at", default=None)


@contextlib.contextmanager
def aiming_at(aim: Aim) -> Iterator[None]:
    """Within it actions choose from this cluster, as where a plan is made and there is no run yet."""
    token = _looked_at.set(aim)
    try:
        yield
    finally:
        _looked_at.reset(token)


def aim_now() -> Aim:
    """Return the aim of the game day that we are part of.

    Raises:
        ConfigError: there is none: nobody has said which cluster may be hit.
    """
    if (looked_at := _looked_at.get()) is not None:
        return looked_at
    folder = os.environ.get(RUN_VARIABLE)
    header = load_run(Path(folder)).header if folder else None
    plan = read_plan(Path(folder)) if folder else None
    if header is None or plan is None or not header.spec.get("kubernetes"):
        raise ConfigError(
            "no cluster is planned: run this experiment by `overproof gameday run`; nothing is injected"
        )
    return Aim(
        name=str(header.spec["target"]),
        cluster=cluster_from_json(header.spec["kubernetes"]),
        seed=header.seed,
        run=header.id,
        uid=str(plan["lab"]["cluster"]["uid"]),
    )

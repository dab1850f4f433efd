"""The kinds of target. A new one is a row here, its keys in ``spec``, and a module that offers a ``KIND``."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from experiments.targets.kind import TargetKind

ACTIONS_MODULE = "experiments.actions"
LAB: Final = "lab"
NAMED: Final = "named"  # only what the experiment declares of it is known
HOSTS: Final = "hosts"
TRAINING: Final = "training"  # the lab's own training job
KUBERNETES: Final = "kubernetes"
OURS = (LAB, TRAINING)  # named by a word, and there for everybody: nobody has to have allowed them
Kind = Literal["lab", "hosts", "kubernetes", "training", "named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One kind, as far as it has to be known before it is used."""

    module: str  # has KIND; imported when the kind is used
    title: str  # of its part of the catalogue
    written: str = ""  # as an experiment names such a target, for whoever has named another
    actions: tuple[str, ...] = ()  # modules whose actions are ours and work on nothing else


KINDS: dict[Kind, Registered] = {
    LAB: Registered(
        module="experiments.lab.target",
        title="On a lab of ours: a gateway and replicas, processes on this machine",
        written="the lab",
        actions=(ACTIONS_MODULE,),
    ),
    HOSTS: Registered(
        module="experiments.hosts.target",
        title="On hosts, over SSH",
        written="hosts (target: {name: …, hosts: […]})",
        actions=("experiments.hosts.actions",),
    ),
    KUBERNETES: Registered(
        module="experiments.kube.target",
        title="On a Kubernetes cluster",
        written="a cluster (target: {name: …, kubernetes: {namespaces: […]}})",
        actions=(
            "experiments.kube.actions",
            "experiments.kube.node_actions",
            "experiments.kube.network_actions",
            "experiments.kube.api_actions",
        ),
    ),
    TRAINING: Registered(
        module="experiments.training.target",
        title="On a training job",
        written="the lab's training job (target: training)",
        actions=("experiments.training.actions",),
    ),
    NAMED: Registered(
        module="experiments.declared.target",
        title="On any target, by actions of others",
    ),
}
OUR_MODULES: dict[str, Kind] = {module: kind for kind, row in KINDS.items() for module in row.actions}


def load_kind(name: Kind) -> TargetKind:
    """Return what a kind of target offers."""
    kind: TargetKind = importlib.import_module(KINDS[name].module).KIND
    return kind

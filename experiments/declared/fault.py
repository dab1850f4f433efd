"""Faults by actions that are not ours, as an experiment declares them: subject, verification, undo."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from experiments.hosts.host import Host
from experiments.kube.cluster import Cluster
from experiments.training.job_spec import WatchedJob
from probes.json_types import JsonObject
from reports.record import mask_secrets

ACTIONS_MODULE = "experiments.actions"
NAME = "declared"  # of the fault in the ledger and in the table of faults
LAB: Final = "lab"
NAMED: Final = "named"  # only what the experiment declares of it is known
HOSTS: Final = "hosts"
TRAINING: Final = "training"  # the lab's own training job
KUBERNETES: Final = "kubernetes"
Kind = Literal["lab", "named", "hosts", "training", "kubernetes"]
# Whose actions are ours, and on what they work: each kind of target has its own module.
OUR_MODULES: dict[str, Kind] = {
    ACTIONS_MODULE: LAB,
    "experiments.hosts.actions": HOSTS,
    "experiments.training.actions": TRAINING,
    "experiments.kube.actions": KUBERNETES,
    "experiments.kube.node_actions": KUBERNETES,
    "experiments.kube.network_actions": KUBERNETES,
    "experiments.kube.api_actions": KUBERNETES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a game day may hit."""

    name: str = LAB  # empty: the experiment names none, and is for plain Chaos Toolkit
    endpoint: str = ""  # which the load asks; empty: the lab's, else the one that the workload names
    hosts: tuple[Host, ...] = ()  # which our own actions may hit, over SSH
    kubernetes: Cluster | None = None  # whose pods and nodes our own actions may hit, by its API
    job: WatchedJob | None = None  # a training job of the user's own, watched in place of traffic

    @property
    def kind(self) -> Kind:
        """What it is, and so which of our actions work on it."""
        if self.name in (LAB, TRAINING):
            return LAB if self.is_lab else TRAINING
        if self.kubernetes is not None:
            return KUBERNETES
        return HOSTS if self.hosts else NAMED

    @property
    def is_lab(self) -> bool:
        """Whether it is our own lab, which needs no declaring."""
        return self.name == LAB


LAB_TARGET = Target()
TRAINING_TARGET = Target(name=TRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One fault."""

    action: str  # name of the activity that injects it
    subject: str
    ends_by: Literal["platform", "undo"]
    verify: JsonObject | None  # a probe: within its tolerance the fault is there; None: nobody can see it
    undo: JsonObject | None  # the activity of the experiment that ends it; None: the platform does
    within_s: float  # in which it takes hold, and is gone after its undo


def foreign_actions(document: JsonObject, harmless: Collection[str] = ()) -> Iterator[JsonObject]:
    """Yield each action of the method that is not ours and that may break something."""
    for activity in document["method"]:
        if is_foreign(activity) and activity.get("name") not in harmless:
            yield activity


def is_foreign(activity: JsonObject) -> bool:
    """Say whether an activity is an action of somebody else's."""
    return activity.get("type") == "action" and module_of(activity) not in OUR_MODULES


def module_of(activity: JsonObject) -> object:
    """Return the Python module that carries an activity out, where one does."""
    return (activity.get("provider") or {}).get("module")


def captured_of(fault: Declared, target: Target, document: JsonObject) -> JsonObject:
    """Return all that looking and undoing need, for the ledger: they may come from another process, later."""
    return {
        "target": target.name,
        "action": fault.action,
        "subject": fault.subject,
        "ends_by": fault.ends_by,
        "verify": fault.verify,
        "undo": fault.undo,
        "within_s": fault.within_s,
        "configuration": document.get("configuration"),
        "secrets": document.get("secrets"),
    }


def without_secrets(captured: JsonObject) -> JsonObject:
    """Return what may stand on the timeline, which everybody reads; the ledger is its owner's alone."""
    return mask_secrets({k: v for k, v in captured.items() if k not in ("configuration", "secrets")})

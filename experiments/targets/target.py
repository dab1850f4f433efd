"""What an experiment names as its target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.hosts.host import Host
from experiments.kube.cluster import Cluster
from experiments.targets.all import HOSTS, KUBERNETES, LAB, NAMED, OURS, TRAINING, Kind
from experiments.training.job_spec import WatchedJob
from probes.json_types import JsonObject

TARGETS_FOLDER = "targets"  # under --out: a folder for each target that is not the lab


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
        if self.name in OURS:
            return LAB if self.is_lab else TRAINING
        if self.kubernetes is not None:
            return KUBERNETES
        return HOSTS if self.hosts else NAMED

    @property
    def is_lab(self) -> bool:
        """Whether it is our own lab, which needs no declaring."""
        return self.name == LAB

    def to_json(self) -> JsonObject:
        """Return what the record says of it: actions find there what they may hit."""
        return {
            "target": self.name,
            "target_kind": self.kind,
            "hosts": [host.to_json() for host in self.hosts],
            "kubernetes": self.kubernetes and self.kubernetes.to_json(),
        }


LAB_TARGET = Target()
TRAINING_TARGET = Target(name=TRAINING)


def target_folder(name: str, out: Path) -> Path:
    """Return the folder that stands for a target other than the lab."""
    return (out / TARGETS_FOLDER / name).resolve()

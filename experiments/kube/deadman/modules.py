"""What travels into the cluster, listed in this one place."""

from __future__ import annotations

from functools import cache

from probes.archive import build_zip

MODULES = (
    "experiments",
    "experiments.kube",
    "experiments.kube.undoing",
    "experiments.kube.undoing.steps",
    "experiments.kube.deadman",
    "experiments.kube.deadman.lease",
    "experiments.kube.deadman.mirror",
    "experiments.kube.deadman.pod",
    "experiments.kube.deadman.pod_api",
    "probes",
    "probes.errors",
    "probes.json_types",
)


@cache
def build_dead_man() -> bytes:
    """Return the archive that the dead-man runs from; any Python from 3.10 on will do."""
    return build_zip(MODULES)

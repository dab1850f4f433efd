"""The one way in which an action on a cluster breaks what it has captured."""

from __future__ import annotations

from pathlib import Path

from experiments.chaos.run_context import record_folder
from experiments.faults.fault import load_fault
from experiments.injecting.bounds import being_planned
from experiments.injecting.injection import inject_fault
from experiments.kube.client import connect
from experiments.kube.cluster import cluster_from_json
from experiments.kube.lock import check_lock
from experiments.kube.undoing.client_api import ClientApi
from probes.json_types import JsonObject


def inject(name: str, captured: JsonObject) -> JsonObject:
    """Break what was captured, or, where a plan is made, only show it.

    Raises:
        FaultRefused: another game day has come to one of the target's namespaces; nothing is touched.
    """
    if being_planned() is not None:
        return inject_fault(load_fault(name), captured, Path())
    cluster = cluster_from_json(captured["cluster"])
    check_lock(ClientApi(client=connect(cluster)), cluster.namespaces, str(captured["run"]))
    return inject_fault(load_fault(name), captured, record_folder())

"""A game day that cordons a node, as a process that can be killed: ``python -m tests.cluster.dead_man``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import yaml

from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.deadman.arming import arm_in_cluster
from experiments.kube.deadman.hold import DeadManHold
from experiments.kube.deadman.mirror import NAMESPACE
from experiments.kube.deadman.objects import DeadManSettings
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.undoing.steps import UndoStep, make_change, make_step
from probes.json_types import JsonObject
from tests.cluster.images import ENDPOINT_IMAGE

SETTINGS = DeadManSettings(namespace=NAMESPACE, image=ENDPOINT_IMAGE, python="python3.11")
_MANIFESTS = Path(__file__).parents[2] / "experiments" / "kube" / "manifests"


def api_of(kubeconfig: str) -> ClientApi:
    """Return the API of the tests' cluster."""
    return ClientApi(client=connect(Cluster(namespaces=(), kubeconfig=kubeconfig)))


def manifests(name: str) -> list[JsonObject]:
    """Return the objects of one of our manifests."""
    return list(yaml.safe_load_all(next(_MANIFESTS.glob(f"*{name}.yaml")).read_text()))


def apply(api: ClientApi, name: str) -> None:
    """Create what a manifest names; what is there stays as it is."""
    for row in manifests(name):
        group, space = row["apiVersion"], row["metadata"].get("namespace")
        base = "/api/v1" if group == "v1" else f"/apis/{group}"
        path = f"{base}{f'/namespaces/{space}' if space else ''}/{row['kind'].lower()}s"
        status, answer = api.ask("POST", path, row)
        assert status in (200, 409), (path, status, answer)


def cordon_step(api: ClientApi, node: str, entry_id: str) -> UndoStep:
    """Return what takes back a cordon that we are about to make."""
    path = f"/api/v1/nodes/{node}"
    found = api.ask("GET", path)[1]
    cordoned = [(("spec", "unschedulable"), True)]
    return make_step(found, subject=f"node/{node}", path=path, ours=cordoned, mark=entry_id)


def _play(kubeconfig: str, folder: Path, nodes: list[str]) -> None:
    api = api_of(kubeconfig)
    place = DeadManHold(api, folder, SETTINGS, away_from=nodes).take()
    for node in nodes:
        entry_id = f"node.cordon-{node}"
        step = cordon_step(api, node, entry_id)
        arm_in_cluster(api, place, entry_id=entry_id, fault="node.cordon", subject=step.subject, steps=[step])
        make_change(step, api)
    print("broken", flush=True)  # noqa: T201
    time.sleep(120)


if __name__ == "__main__":
    _play(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

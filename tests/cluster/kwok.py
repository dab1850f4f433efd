"""Nodes that are no machines: kwok answers for them, and all else of their cluster is real."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from experiments.kube.client import KubeClient
from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.cluster.cluster import remove_cluster, start_cluster
from tests.cluster.plan import MARK, Clocks, Plan
from tests.cluster.programs import find_kwok

_STAGES = Path(__file__).parent / "programs" / "kwok" / "stages.yaml"
GPU, GPUS_PER_NODE = "nvidia.com/gpu", 8
RACK_LABEL, NODES_PER_RACK = "rack", 32
_SILENT_S = 3600  # nothing is said of a node once it is ready: no cluster here lives longer
_AT_ONCE = 8
_START_S = 120.0
_PATIENCE_S = 120.0  # with an API that is busy making thousands of pods


@contextmanager
def simulated_cluster(folder: Path) -> Iterator[Plan]:
    """Run a control plane without workers, and kwok for whatever nodes are made in it."""
    program = find_kwok()
    try:
        plan = start_cluster(folder, node_count=0, clocks=Clocks(node_monitor_grace_s=_SILENT_S))
        with (folder / "kwok.log").open("wb") as log:
            kwok = subprocess.Popen(
                [
                    str(program),
                    f"--kubeconfig={plan.kubeconfig}",
                    f"--config={_STAGES}",
                    "--v=WARN",
                    "--manage-all-nodes=true",
                    "--node-lease-duration-seconds=0",  # none: those of a thousand keep an API busy
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {MARK: str(folder)},  # goes with the cluster
            )
        try:
            yield plan
        finally:
            kwok.kill()
            kwok.wait()
    finally:
        remove_cluster(folder)


def rack_of(number: int) -> str:
    """Return the rack of the n-th node."""
    return f"rack-{number // NODES_PER_RACK:03d}"


def node_name(number: int) -> str:
    """Return what the n-th node is called."""
    return f"gpu-{number:04d}"


def make_nodes(client: KubeClient, count: int) -> None:
    """Make so many nodes with eight GPUs each, ready and such that game days may hit them."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        nodes = map(_node, range(count))
        made = pool.map(lambda node: client.ask("POST", "/api/v1/nodes", body=node), nodes)
        assert len([*made]) == count


def _node(number: int) -> JsonObject:
    holds = {"cpu": "128", "memory": "1Ti", "pods": "64", GPU: str(GPUS_PER_NODE)}
    labels = {ALLOWED_LABEL: ALLOWED_VALUE, RACK_LABEL: rack_of(number)}
    name = node_name(number)
    ready = {"type": "Ready", "status": "True", "reason": "Simulated"}
    return {
        "metadata": {"name": name, "labels": labels | {"kubernetes.io/hostname": name}},
        "status": {"capacity": holds, "allocatable": holds, "conditions": [ready]},
    }


def make_services(client: KubeClient, namespace: str, *, count: int, replicas: int) -> None:
    """Make so many deployments of so many replicas, a GPU each, with budgets; wait until all are ready."""
    labels = {ALLOWED_LABEL: ALLOWED_VALUE}
    client.ask("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace, "labels": labels}})
    budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    names = [f"chat-{number:02d}" for number in range(count)]
    for name in names:
        client.ask("POST", deployments, body=_deployment(name, replicas), within_s=_PATIENCE_S)
    _await(lambda: _sum(client, deployments, "readyReplicas"), count * replicas, "pods are ready")
    for name in names:  # last: their controller else looks at each of them whenever any pod changes
        client.ask("POST", budgets, body=_budget(name), within_s=_PATIENCE_S)
    _await(lambda: _sum(client, budgets, "currentHealthy"), count * replicas, "pods are under a budget")


def _sum(client: KubeClient, path: str, key: str) -> int:
    return sum(int((row.get("status") or {}).get(key, 0)) for row in client.listed(path))


def _budget(name: str) -> JsonObject:
    spec = {"maxUnavailable": "10%", "selector": {"matchLabels": {"app": name}}}
    return {"metadata": {"name": name}, "spec": spec}


def _deployment(name: str, replicas: int) -> JsonObject:
    holds = {"requests": {"cpu": "8", GPU: "1"}, "limits": {GPU: "1"}}
    container = {"name": "server", "image": "overproof.test/none:1", "resources": holds}
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    selector = {"matchLabels": {"app": name}}
    return {"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": selector, "template": pod}}


def _await(reached: Callable[[], int], wanted: int, what: str) -> None:
    seen = [0]

    def is_reached() -> bool:
        try:
            seen[0] = reached()
        except TargetError:  # thousands are made at once: the API may take its time meanwhile
            return False
        return seen[0] >= wanted

    # A fifth of a second a pod: bounded, and far more than a machine of two cores needs.
    if not wait_until(is_reached, timeout_s=_START_S + wanted / 5, interval_s=2.0):
        raise TimeoutError(f"{seen[0]} of {wanted} {what}")

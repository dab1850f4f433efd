"""A rack of a thousand nodes drained: kwok's nodes with eight GPUs each, 5,000 pods, a real control plane.

What is measured is us: the time that plan, drain and undo take, what they ask of the API, and their memory.
Pods of kwok start and end at once, so how long a drain takes says nothing about anybody's grace periods.
Root and the programs of ``make cluster-programs`` are needed; some minutes go into the making of the pods.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.faults.fault import load_fault
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import actions
from experiments.kube.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.faults import await_back
from experiments.kube.sampler import workloads_under
from probes.json_types import JsonObject
from tests.benchmarks.figure import Figure
from tests.cluster.kwok import (
    NODES_PER_RACK,
    RACK_LABEL,
    make_nodes,
    make_services,
    rack_of,
    simulated_cluster,
)

_NODES, _SERVICES, _REPLICAS = 1000, 50, 100
_NAMESPACE = "inference"
_BACK_S = 120.0
_CHILD_TIMEOUT_S = 300.0


def figures(*, nodes: int = _NODES, services: int = _SERVICES, replicas: int = _REPLICAS) -> Iterator[Figure]:
    """Yield time, calls and memory of each step of one drained rack."""
    with (
        tempfile.TemporaryDirectory(prefix="kube-scale-") as folder,
        simulated_cluster(Path(folder) / "cluster") as plan,
    ):
        client = connect(Cluster(namespaces=(_NAMESPACE,), kubeconfig=str(plan.kubeconfig)))
        make_nodes(client, nodes)
        make_services(client, _NAMESPACE, count=services, replicas=replicas)
        command = [sys.executable, "-m", "tests.benchmarks.kube_scale", str(plan.kubeconfig), folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        size = f"{nodes} nodes, {services * replicas} pods"
        for row in json.loads(done.stdout):
            for unit in ("s", "calls", "MiB"):
                name = f"{row['step']}: {size}"
                yield Figure(name=name, median=row[unit], unit=unit, repeats=1)


def measure(kubeconfig: str, folder: Path) -> list[JsonObject]:
    """Plan, drain and give back one rack; return time, calls and peak of memory of each step."""
    cluster = Cluster(namespaces=(_NAMESPACE,), kubeconfig=kubeconfig)
    client = connect(cluster)
    aim = Aim(name="scale", cluster=cluster, seed=1, run="scale", uid=client.identity().uid)
    rows: list[JsonObject] = []

    def step(name: str, work: Callable[[], Any]) -> Any:
        began, calls = time.perf_counter(), client.calls
        result = work()
        took = {"step": name, "s": time.perf_counter() - began, "calls": client.calls - calls}
        rows.append(took | {"MiB": _peak_mib()})
        return result

    def plan() -> list[JsonObject]:
        with planning() as found:
            actions.node_drain(label_selector=f"{RACK_LABEL}={rack_of(NODES_PER_RACK)}", count=NODES_PER_RACK)
        return [captured for _, captured in found]

    fault = load_fault("node.drain")
    with aiming_at(aim):
        step("begun", lambda: None)
        captured = step("plan of a rack", plan)
        step("what a day watches", lambda: workloads_under(cluster))
        step("drain of a rack", lambda: [inject_fault(fault, each, folder) for each in captured])
        back = step("pods back", lambda: [await_back(each, within_s=_BACK_S) for each in captured])
        undone = step("undo", lambda: undo_pending(folder, by="benchmark"))
    moved = sum(len(each["hit_pods"]) for each in captured)
    assert moved > 0, "no pod was on the rack"
    assert all(is_back for is_back, _ in back), back
    assert [each.is_restored for each in undone] == [True], undone
    return rows


def _peak_mib() -> float:
    """Return the most memory that this process has had; ``ru_maxrss`` begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))

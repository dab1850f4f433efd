"""Pods that burn in on the real cluster: the gate before a job, and the round of idle nodes at night."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from burnin.fleet.taints import ANNOTATION, TAINT
from probes.child import wait_until
from probes.json_types import JsonObject
from reports.run import load_run
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_accounts import grant
from tests.cluster.kube_fleet import image_by_digest, states, write_fleet
from tests.cluster.kube_inside import at_home, config_map, exit_code_of, shipped
from tests.cluster.running import Hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

GPU = "nvidia.com/gpu"
SEEDED = ("--seed-fault", "matmul:nan@cpu:0")


def gated(node: str, core: int, *more: str) -> JsonObject:
    """Return the shipped pod on a node, on one core, with a job that says that it ran."""
    spec = at_home(
        shipped("burnin/gate", "Pod")["spec"], more=("--device", "cpu", "--duration-s", "8", *more)
    )
    (gate,) = spec["initContainers"]
    gate["command"] = ["taskset", "-c", str(core), *gate["command"]]
    (job,) = spec["containers"]
    job |= {
        "image": ENDPOINT_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3.11", "-c", "print('ran')"],
    }
    del job["resources"]
    spec["nodeName"] = node
    return {"metadata": {"name": f"gated-{node}"}, "spec": spec}


def said(core: client.CoreV1Api, namespace: str) -> list[str]:
    """Return the last words of each container, for a test that fails to show."""
    pods = core.list_namespaced_pod(namespace).items
    every = [(*pod.status.init_container_statuses, *pod.status.container_statuses) for pod in pods]
    ended = [status.state.terminated for statuses in every for status in statuses]
    return [f"{each.exit_code} {each.reason} {each.message}" for each in ended if each is not None]


def test_a_job_behind_the_gate_starts_on_a_node_that_does_not_fail_and_on_no_other(
    api: client.ApiClient, namespace: str
) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_pod(namespace, gated("node-1", 0))
    core.create_namespaced_pod(namespace, gated("node-2", 1, *SEEDED))

    def phases() -> dict[str, str]:
        pods = core.list_namespaced_pod(namespace).items
        return {pod.spec.node_name: pod.status.phase for pod in pods}

    over = wait_until(lambda: set(phases().values()) <= {"Succeeded", "Failed"}, timeout_s=220, interval_s=1)

    assert over, phases()
    assert phases() == {"node-1": "Succeeded", "node-2": "Failed"}, said(core, namespace)
    assert core.read_namespaced_pod_log("gated-node-1", namespace).strip() == "ran"
    (gate,) = core.read_namespaced_pod("gated-node-2", namespace).status.init_container_statuses
    (job,) = core.read_namespaced_pod("gated-node-2", namespace).status.container_statuses
    assert gate.state.terminated.exit_code == 1
    assert "overproof gate: fail: " in gate.state.terminated.message
    assert "exact device:cpu:0" in gate.state.terminated.message
    assert job.state.terminated is None


@pytest.fixture
def busy_node(api: client.ApiClient, namespace: str) -> Iterator[str]:
    """A node with a GPU, which a pod holds."""
    core, name = client.CoreV1Api(api), "node-2"
    core.patch_node_status(name, {"status": {"capacity": {GPU: "1"}, "allocatable": {GPU: "1"}}})
    holder = {
        "name": "holder",
        "image": ENDPOINT_IMAGE,
        "imagePullPolicy": "Never",
        "resources": {"limits": {GPU: "1"}},
    }
    pod = {"metadata": {"name": "holder"}, "spec": {"containers": [holder]}}
    core.create_namespaced_pod(namespace, pod)
    held = wait_until(
        lambda: core.read_namespaced_pod("holder", namespace).spec.node_name == name, timeout_s=60
    )
    assert held
    yield name
    core.delete_namespaced_pod("holder", namespace)
    core.patch_node_status(name, {"status": {"capacity": {GPU: None}, "allocatable": {GPU: None}}})


@pytest.fixture
def image(hosts: Hosts) -> str:
    return image_by_digest(hosts)


def test_a_night_leaves_a_busy_node_alone_and_taints_an_idle_one_that_fails(
    api: client.ApiClient, image: str, busy_node: str, tmp_path: Path
) -> None:
    grant("0-namespace", "burnin/rights", "burnin/taints")
    core, space = client.CoreV1Api(api), "overproof"
    fleet = write_fleet(tmp_path, image, "overproof-burnin", ["node-1", busy_node])
    fleet.write_text(fleet.read_text().replace("permission: listed", "permission: {ask: kubernetes-idle}"))
    config_map(core, space, "overproof-fleet", [fleet])
    runs, name = tmp_path / "runs", f"night-{time.time_ns() % 10**9}"
    runs.mkdir()
    spec = shipped("burnin/nightly", "CronJob")["spec"]["jobTemplate"]["spec"]
    short = ("--profile", "gate", "--device", "cpu", "--duration-s", "8", *SEEDED)
    spec["template"]["spec"] = at_home(spec["template"]["spec"], runs=runs, more=short)
    client.BatchV1Api(api).create_namespaced_job(space, {"metadata": {"name": name}, "spec": spec})
    try:
        code = exit_code_of(api, space, name, timeout_s=150)
        run = load_run((runs / "latest").resolve())
        node, busy = core.read_node("node-1"), core.read_node(busy_node)
    finally:
        client.BatchV1Api(api).delete_namespaced_job(name, space, propagation_policy="Background")
        bare = {"metadata": {"annotations": {ANNOTATION: None}}, "spec": {"taints": None}}
        core.patch_node("node-1", bare)

    assert {host: state for host, (state, _) in states(run).items()} == {
        "node-1": "finished",
        busy_node: "unpermitted",
    }, states(run)
    assert code == 1, [f"{f.rule} {f.subject}: {f.outcome}: {f.observed}" for f in run.findings]
    assert [taint.key for taint in node.spec.taints or ()] == [TAINT]
    assert "exact" in node.metadata.annotations[ANNOTATION]
    assert not busy.spec.taints

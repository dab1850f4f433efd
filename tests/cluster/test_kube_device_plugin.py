"""A real device plugin on a real kubelet, lost and given back."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from experiments.faults.fault import FaultRefused, load_fault
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube.actions import no_pods_wait
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import ALLOWED_VALUE, Cluster
from experiments.kube.observations import gpus_allocatable
from experiments.kube.watching.observed import node_trouble
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.images import DEVICE_PLUGIN_IMAGE, ENDPOINT_IMAGE, write_device_plugin
from tests.cluster.kube_days import allow_namespace, label_node
from tests.cluster.node import SOCKET
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.programs import find_device_plugin
from tests.cluster.running import Hosts
from tests.cluster.test_kube_faults import planned

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NODE, RESOURCE, LABEL = "node-3", "overproof.test/gpu", "overproof.test/device-plugin"
SOCKETS = "/var/lib/kubelet/device-plugins"


def daemon_set() -> JsonObject:
    """Return the plugin as a DaemonSet, as those of GPU vendors are."""
    container = {
        "name": "plugin",
        "image": DEVICE_PLUGIN_IMAGE,
        "imagePullPolicy": "Never",
        "args": [RESOURCE, "4"],
        "volumeMounts": [{"name": "sockets", "mountPath": SOCKETS}],
    }
    pod = {
        "nodeSelector": {LABEL: "true"},
        "containers": [container],
        "volumes": [{"name": "sockets", "hostPath": {"path": SOCKETS}}],
        "terminationGracePeriodSeconds": 1,
    }
    labels = {"app": "device-plugin"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "metadata": {"name": "device-plugin"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


@pytest.fixture
def aim(api: client.ApiClient, hosts: Hosts, namespace: str) -> Iterator[Aim]:
    """A node that gives out four devices, and may be hit."""
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    archive = write_device_plugin(find_device_plugin())
    hosts.ask(NODE, "ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", str(archive))
    space = f"plugin-{secrets.token_hex(3)}"
    core.create_namespace({"metadata": {"name": space}})
    apps.create_namespaced_daemon_set(space, daemon_set())
    allow_namespace(api, namespace)
    label_node(api, NODE, ALLOWED_VALUE)
    core.patch_node(NODE, {"metadata": {"labels": {LABEL: "true"}}})
    cluster = Cluster(namespaces=(namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])
    uid = connect(cluster).identity().uid
    found = Aim(name="t", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0000", uid=uid)
    try:
        with aiming_at(found):
            assert given_out()["outcome"] == "pass", given_out()
            yield found
    finally:
        core.patch_node(NODE, {"metadata": {"labels": {LABEL: None}}})
        label_node(api, NODE, None)
        core.delete_namespace(space)


def given_out(within_s: float = 60) -> JsonObject:
    return gpus_allocatable(per_node_min=4, nodes=[NODE], resource=RESOURCE, within_s=within_s)


def asking_pod(name: str) -> JsonObject:
    container = {"name": "main", "image": ENDPOINT_IMAGE, "imagePullPolicy": "Never"}
    container |= {"resources": {"limits": {RESOURCE: "1"}}}
    return {
        "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }


def test_without_its_plugin_a_node_gives_out_nothing_and_what_runs_runs_on(
    api: client.ApiClient, aim: Aim, namespace: str, tmp_path: Path
) -> None:
    core = client.CoreV1Api(api)

    def phase(name: str) -> str:
        return str(core.read_namespaced_pod(name, namespace).status.phase)

    core.create_namespaced_pod(namespace, asking_pod("before"))
    ran = wait_until(lambda: phase("before") == "Running", timeout_s=30)
    (captured,) = planned("device_plugin_lose", node=NODE, label=LABEL, resource=RESOURCE)
    inject_fault(load_fault("device-plugin.lose"), captured, tmp_path)
    lost = given_out(within_s=0)
    trouble = node_trouble(connect(aim.cluster).ask("GET", f"/api/v1/nodes/{NODE}"))
    core.create_namespaced_pod(namespace, asking_pod("during"))
    waits = wait_until(lambda: no_pods_wait()["outcome"] == "fail", timeout_s=20)
    waiting = no_pods_wait()
    still = phase("before")
    (undone,) = undo_pending(tmp_path, by="test")

    assert ran
    assert any("before, which has" in said for said in captured["carries"])
    assert (lost["outcome"], lost["nodes"][NODE]["allocatable"]) == ("fail", 0)
    assert trouble == f"gives out no {RESOURCE}"  # by which a day notices it
    assert waits
    assert f"Insufficient {RESOURCE}" in waiting["waiting"][f"{namespace}/during"]
    assert still == "Running"
    assert undone.is_restored, undone.did
    assert given_out(within_s=0)["outcome"] == "pass"
    assert core.read_node(NODE).metadata.labels[LABEL] == "true"
    assert wait_until(lambda: phase("during") == "Running", timeout_s=30)


def test_a_label_that_no_daemon_set_asks_for_is_refused(aim: Aim) -> None:
    with pytest.raises(FaultRefused, match="no DaemonSet asks for its label"):
        planned("device_plugin_lose", node=NODE, resource=RESOURCE)
    with pytest.raises(FaultRefused, match=r"gives out no nvidia.com/gpu"):
        planned("device_plugin_lose", node=NODE, label=LABEL)

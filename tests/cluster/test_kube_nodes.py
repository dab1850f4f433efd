"""The loss of a node on the real cluster, over SSH: whole game days, healed and not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client

from experiments.faults.fault import FaultRefused, load_fault
from experiments.hosts.host import Host
from experiments.hosts.session import close_sessions
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import node_actions
from experiments.kube.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.kube_days import (
    CATALOGUE,
    DEPLOYMENT,
    Service,
    decided_day,
    kill_in_the_middle,
    lent_node,
    outcome_of,
    run_day,
    serve,
    take_back,
    told,
    write_day,
)
from tests.cluster.plan import CONTROL_PLANE, KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts
from tests.cluster.ways_in import ways_in
from tests.cluster.workload import is_node_ready, is_node_well

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

CONTROLLERS = "kube-controller-manager"
# Beyond the cluster's own 16 s: what is left is for a model that takes 4 s to load.
RECOVERY_S = 45


@pytest.fixture
def service(api: client.ApiClient, namespace: str) -> Service:
    return serve(api, namespace, loads_for_s=4)


@pytest.fixture
def node(service: Service, hosts: Hosts, tmp_path: Path) -> Iterator[str]:
    """A node that carries a replica, that game days may hit, and that lets us in."""
    name = lent_node(service)
    with ways_in(hosts, tmp_path / "home"):
        yield name
    hosts.ask(name, "ip", "link", "set", "eth0", "up")
    hosts.start_service(name, "kubelet")
    take_back(service, name)
    assert wait_until(lambda: is_node_well(service.api, name), timeout_s=60)


def losing(document: JsonObject, node: str, *, undo_after_s: float, recovery_s: float = RECOVERY_S) -> None:
    """Name the node, and expect what this cluster's clocks allow."""
    action, probe = document["method"]
    action["provider"]["arguments"] |= {"node": node, "undo_after_s": undo_after_s}
    probe["provider"]["arguments"]["within_s"] = recovery_s + 5
    (extension,) = document["extensions"]
    extension["target"]["kubernetes"]["nodes"] = [node]
    extension["recovery_s"] = recovery_s
    if "cut" in action["name"]:
        extension["workload"] = str(CATALOGUE / "workloads" / "impatient-chat.yaml")


def test_a_node_whose_kubelet_stops_is_lost_and_the_day_tells_platform_from_application(
    service: Service, node: str, tmp_path: Path
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=120)

    status, run = decided_day(write_day(tmp_path, "node-kubelet-stop", service, change))

    assert status == 0, told(run)
    assert node not in service.ready().values()
    assert len(service.ready()) == 3
    assert is_node_well(service.api, node)


def test_a_node_that_is_cut_off_is_lost_and_comes_back_by_the_timer_on_it(
    service: Service, node: str, tmp_path: Path
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=45)

    status, run = decided_day(write_day(tmp_path, "node-network-cut", service, change))

    assert status == 0, told(run)
    assert node not in service.ready().values()
    assert is_node_well(service.api, node)
    (undo,) = [f for f in run.findings if f.rule == "undo"]
    assert "by timer on the host" in undo.observed


def test_without_the_controllers_nobody_takes_the_place_of_lost_pods_and_the_node_is_given_back(
    service: Service, node: str, tmp_path: Path, hosts: Hosts
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=120, recovery_s=25)

    path = write_day(tmp_path, "node-kubelet-stop", service, change)
    hosts.stop_service(CONTROL_PLANE, CONTROLLERS)
    try:
        status, run = run_day(path)
    finally:
        hosts.start_service(CONTROL_PLANE, CONTROLLERS)

    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail", told(run)
    assert outcome_of(run, "undo") == "pass", told(run)
    assert hosts.service_pids(node, "kubelet")


def test_a_node_that_is_cut_off_by_a_controller_that_is_killed_with_its_disk_is_back_within_a_minute(
    service: Service, node: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=35)

    path = write_day(tmp_path, "node-network-cut", service, change)
    kill_in_the_middle(path, lambda: not is_node_ready(service.api, node))
    killed_at, was_lost = time.monotonic(), not is_node_well(service.api, node)

    is_back = wait_until(lambda: is_node_well(service.api, node), timeout_s=60)
    record_property("back_after_s", round(time.monotonic() - killed_at, 1))

    assert was_lost
    assert is_back


@pytest.fixture
def aim(service: Service, node: str, hosts: Hosts) -> Iterator[Aim]:
    """Where actions choose from, as while a plan is made."""
    cluster = Cluster(
        namespaces=(service.namespace,),
        kubeconfig=os.environ[KUBECONFIG_VARIABLE],
        nodes=tuple(Host(name=each.name) for each in hosts.plan.nodes),
    )
    uid = connect(cluster).identity().uid
    pinned = Aim(name="inference", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0000", uid=uid)
    with aiming_at(pinned):
        yield pinned
    close_sessions()


def planned(action: str, **arguments: object) -> JsonObject:
    """Return what an action would hit."""
    with planning() as found:
        getattr(node_actions, action)(**arguments)
    ((_, captured),) = found
    return captured


def taints_of(service: Service, node: str) -> list[str]:
    return [taint.key for taint in service.core.read_node(node).spec.taints or []]


@pytest.mark.usefixtures("aim")
def test_a_node_that_was_deleted_is_registered_again_with_all_that_it_had(
    service: Service, node: str, tmp_path: Path
) -> None:
    taint = {"key": "gameday.test/kept", "value": "1", "effect": "PreferNoSchedule"}
    mine = {"labels": {"gameday.test/kept": "1"}, "annotations": {"gameday.test/why": "kept"}}
    service.core.patch_node(node, {"metadata": mine, "spec": {"taints": [taint]}})
    before = service.core.read_node(node)
    try:
        captured = planned("node_delete", node=node, undo_after_s=200)
        injected = inject_fault(load_fault("node.delete"), captured, tmp_path)
        left = [each.metadata.name for each in service.core.list_node().items]
        undone = undo_pending(tmp_path, by="test")
        after = service.core.read_node(node)
    finally:
        service.core.patch_node(node, {"spec": {"taints": None}})

    assert "no node any more" in injected["verified"]
    assert node not in left
    assert [each.is_restored for each in undone] == [True], undone[0].did
    assert after.metadata.uid != before.metadata.uid
    assert after.metadata.labels == before.metadata.labels
    assert after.metadata.annotations["gameday.test/why"] == "kept"
    assert [each.to_dict() for each in after.spec.taints] == [each.to_dict() for each in before.spec.taints]
    assert undo_pending(tmp_path, by="test") == []


@pytest.mark.usefixtures("aim")
def test_a_pod_of_a_statefulset_on_a_lost_node_is_made_elsewhere_once_that_is_out_of_service(
    service: Service, node: str, tmp_path: Path
) -> None:
    apps = client.AppsV1Api(service.api)
    template = apps.read_namespaced_deployment(DEPLOYMENT, service.namespace).spec.template
    apps.delete_namespaced_deployment(DEPLOYMENT, service.namespace)
    service.await_ready(0)
    spec = {"serviceName": "one", "selector": {"matchLabels": {"app": DEPLOYMENT}}, "template": template}
    apps.create_namespaced_stateful_set(
        service.namespace, {"metadata": {"name": "one"}, "spec": spec | {"replicas": 3}}
    )
    service.await_ready(3)
    (lost,) = [pod for pod, on in service.ready().items() if on == node]

    captured = planned("node_out_of_service", node=node, undo_after_s=200)
    inject_fault(load_fault("node.out-of-service"), captured, tmp_path)
    is_tainted = "node.kubernetes.io/out-of-service" in taints_of(service, node)
    is_elsewhere = wait_until(lambda: service.ready().get(lost) not in (node, None), timeout_s=60)
    undone = undo_pending(tmp_path, by="test")

    assert is_tainted
    assert is_elsewhere
    assert [each.is_restored for each in undone] == [True], undone[0].did
    assert is_node_well(service.api, node)


@pytest.mark.usefixtures("aim")
def test_a_zone_beyond_the_rule_and_a_timer_that_would_come_too_soon_are_refused(
    node: str, hosts: Hosts
) -> None:
    zones = [each.zone for each in hosts.plan.nodes]
    large = max(set(zones), key=zones.count)

    with pytest.raises(FaultRefused, match=r"2 of 3 nodes would go \(67%\), at most 55% may"):
        planned("zone_cut", zone=large, interface="eth0")
    with pytest.raises(FaultRefused, match=r"would put .* back too soon: the platform itself takes"):
        planned("node_kubelet_stop", node=node, undo_after_s=10)
    with pytest.raises(FaultRefused, match=r"there is nothing to stop|knows no such unit"):
        planned("node_kubelet_stop", node=node, unit="nothing", undo_after_s=200)

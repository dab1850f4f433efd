"""The loss of a node on the real cluster, over SSH: whole game days, healed and not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client

from experiments.faults.fault import FaultRefused
from experiments.hosts.host import Host
from experiments.hosts.session import close_sessions
from experiments.injecting.bounds import planning
from experiments.kube import node_actions
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.kube_days import (
    CATALOGUE,
    DEPLOYMENT,
    Service,
    has_its_times,
    kill_in_the_middle,
    lent_node,
    lost_day,
    outcome_of,
    run_day,
    serve,
    spread,
    take_back,
    told,
    watch_over,
    without_controllers,
    write_day,
)
from tests.cluster.plan import KUBECONFIG_VARIABLE, Plan
from tests.cluster.running import Hosts
from tests.cluster.ways_in import ways_in
from tests.cluster.workload import is_node_ready, is_node_well

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

# Beyond the cluster's own 16 s: what is left is for a model that takes 4 s to load.
RECOVERY_S = 45


@pytest.fixture
def service(api: client.ApiClient, namespace: str, hosts: Hosts) -> Service:
    every = [each.name for each in hosts.plan.nodes]  # one replica each
    assert wait_until(lambda: all(is_node_well(api, name) for name in every), timeout_s=60)
    return serve(api, namespace, loads_for_s=4)


@pytest.fixture
def node(service: Service, hosts: Hosts, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A node that carries a replica, that game days may hit, and that lets us in."""
    wanted = getattr(request, "param", None)
    if wanted is not None:
        spread(service, wanted)
    name = lent_node(service, among=lambda each: wanted in (None, each))
    with ways_in(hosts, tmp_path / "home"):
        yield name
    hosts.ask(name, "ip", "link", "set", "eth0", "up")
    hosts.start_service(name, "kubelet")
    take_back(service, name)
    assert wait_until(lambda: is_node_well(service.api, name), timeout_s=60)


def zone_of_node(name: str) -> str:
    """Return the zone of a node by the plan of the cluster."""
    (zone,) = {each.zone for each in Plan(folder=Path(), network=0).nodes if each.name == name}
    return zone


def losing(document: JsonObject, node: str, *, undo_after_s: float, recovery_s: float = RECOVERY_S) -> None:
    """Name the node, and expect what this cluster's clocks allow."""
    action, probe = document["method"]
    which = {"node": node} if "node" in action["provider"]["arguments"] else {"zone": zone_of_node(node)}
    action["provider"]["arguments"] |= which | {"undo_after_s": undo_after_s}
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

    status, run = lost_day(service, node, write_day(tmp_path, "node-kubelet-stop", service, change))

    assert status == 0, told(run)
    assert has_its_times(run, is_node_lost=True)
    assert node not in service.ready().values()
    assert len(service.ready()) == 3
    assert is_node_well(service.api, node)


def test_a_node_that_is_cut_off_is_lost_and_comes_back_by_the_timer_on_it(
    service: Service, node: str, tmp_path: Path
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=45)

    status, run = lost_day(service, node, write_day(tmp_path, "node-network-cut", service, change))

    assert status == 0, told(run)
    assert has_its_times(run, is_node_lost=True)
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
    with without_controllers(hosts):
        status, run = run_day(path)

    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail", told(run)
    assert outcome_of(run, "undo") == "pass", told(run)
    assert hosts.service_pids(node, "kubelet")


def test_without_the_controllers_a_node_that_is_cut_off_fails_the_day_and_its_timer_puts_it_back(
    service: Service, node: str, tmp_path: Path, hosts: Hosts
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=50, recovery_s=20)

    path = write_day(tmp_path, "node-network-cut", service, change)
    with without_controllers(hosts):
        status, run = run_day(path)

    (undo,) = [f for f in run.findings if f.rule == "undo"]
    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail", told(run)
    assert outcome_of(run, "undo") == "pass", told(run)
    assert "by timer on the host" in undo.observed
    assert wait_until(lambda: is_node_well(service.api, node), timeout_s=60)


@pytest.mark.parametrize("node", ["node-2"], indirect=True)
def test_a_zone_that_is_cut_off_is_carried_by_the_other_and_comes_back_by_its_timers(
    service: Service, node: str, tmp_path: Path, hosts: Hosts
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=45)

    status, run = lost_day(service, node, write_day(tmp_path, "zone-cut", service, change))

    (redundancy,) = [f for f in run.findings if f.rule == "redundancy"]
    assert [each.name for each in hosts.plan.nodes if each.zone == zone_of_node(node)] == [node]
    assert status == 0, told(run)
    assert "all pods ready again after" in redundancy.observed
    assert outcome_of(run, "platform-time") == "pass", told(run)
    assert outcome_of(run, "application-time") == "pass", told(run)
    assert {*service.ready().values()} == {each.name for each in hosts.plan.nodes} - {node}
    assert is_node_well(service.api, node)


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


@pytest.fixture
def owned(service: Service, node: str) -> Iterator[client.V1Node]:
    """The node with a label, an annotation and a taint of its owner."""
    taint = {"key": "gameday.test/kept", "value": "1", "effect": "PreferNoSchedule"}
    mine = {"labels": {"gameday.test/kept": "1"}, "annotations": {"gameday.test/why": "kept"}}
    service.core.patch_node(node, {"metadata": mine, "spec": {"taints": [taint]}})
    yield service.core.read_node(node)
    none = {"labels": {"gameday.test/kept": None}, "annotations": {"gameday.test/why": None}}
    service.core.patch_node(node, {"metadata": none, "spec": {"taints": None}})


def is_as_before(service: Service, before: client.V1Node) -> bool:
    """Say whether a node is another object, ready, and otherwise what it was."""
    name = before.metadata.name
    try:
        now = service.core.read_node(name)
    except client.ApiException:
        return False
    return (
        now.metadata.uid != before.metadata.uid
        and now.metadata.labels == before.metadata.labels
        and now.metadata.annotations["gameday.test/why"] == "kept"
        and [each.to_dict() for each in now.spec.taints or []]
        == [each.to_dict() for each in before.spec.taints]
        and is_node_ready(service.api, name)
    )


def is_there(service: Service, node: str) -> bool:
    return node in [each.metadata.name for each in service.core.list_node().items]


def test_a_node_that_was_deleted_is_registered_again_with_all_that_it_had(
    service: Service, node: str, owned: client.V1Node, tmp_path: Path, hosts: Hosts
) -> None:
    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=200, recovery_s=90)  # of which a minute for the garbage collector

    status, run = lost_day(service, node, write_day(tmp_path, "node-delete", service, change))

    (fault,) = [f for f in run.findings if f.rule == "fault"]
    assert status == 0, told(run)
    assert "no node any more" in fault.observed
    assert node not in service.ready().values()
    assert is_as_before(service, owned), service.core.read_node(node)
    assert hosts.service_pids(node, "kubelet")


@pytest.mark.usefixtures("no_dead_man_left")
def test_a_node_that_was_deleted_by_a_controller_that_is_killed_with_its_disk_has_all_it_had_within_a_minute(
    service: Service,
    node: str,
    owned: client.V1Node,
    tmp_path: Path,
    hosts: Hosts,
    record_property: Callable[[str, object], None],
) -> None:
    """The timer on its host is told to leave, at which it undoes; it may not be set below 82 s here."""

    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=200, recovery_s=90)
        watch_over(document, service)

    path = write_day(tmp_path, "node-delete", service, change)
    kill_in_the_middle(path, lambda: not is_there(service, node))
    killed_at, was_there = time.monotonic(), is_there(service, node)
    end_timer(hosts, node)

    is_back = wait_until(lambda: is_as_before(service, owned), timeout_s=60)
    record_property("back_after_s", round(time.monotonic() - killed_at, 1))

    assert not was_there
    assert is_back, service.core.read_node(node)


def end_timer(hosts: Hosts, node: str) -> None:
    """Tell the timer that was armed last on a host to leave, as a host does that goes off."""
    newest = "cat $(ls -t /var/lib/overproof/armed/*/timer.json | head -1)"
    pid = json.loads(hosts.ask(node, "sh", "-c", newest))["pid"]
    hosts.ask(node, "kill", "-TERM", str(pid))


def test_a_pod_of_a_statefulset_on_a_lost_node_is_made_elsewhere_once_that_is_out_of_service(
    service: Service, node: str, tmp_path: Path
) -> None:
    apps = client.AppsV1Api(service.api)
    template = apps.read_namespaced_deployment(DEPLOYMENT, service.namespace).spec.template
    apps.delete_namespaced_deployment(DEPLOYMENT, service.namespace)
    service.await_ready(0)
    spec = {"serviceName": "one", "selector": {"matchLabels": {"app": DEPLOYMENT}}, "template": template}
    parallel = {"replicas": 3, "podManagementPolicy": "Parallel"}
    apps.create_namespaced_stateful_set(
        service.namespace, {"metadata": {"name": "one"}, "spec": spec | parallel}
    )
    service.await_ready(3)
    (lost,) = [pod for pod, on in service.ready().items() if on == node]

    def change(document: JsonObject) -> None:
        losing(document, node, undo_after_s=200, recovery_s=60)
        (probe,) = document["steady-state-hypothesis"]["probes"]
        probe["provider"]["arguments"] = {"statefulset": "one"}

    status, run = lost_day(service, node, write_day(tmp_path, "node-out-of-service", service, change))

    (fault,) = [f for f in run.findings if f.rule == "fault"]
    assert status == 0, told(run)
    assert "out-of-service" in fault.observed
    assert service.ready()[lost] != node
    assert len(service.ready()) == 3
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


@pytest.mark.usefixtures("aim")
def test_a_node_without_a_pod_of_the_target_is_refused_since_nothing_would_heal(
    service: Service, node: str
) -> None:
    none = {"spec": {"replicas": 0}}
    client.AppsV1Api(service.api).patch_namespaced_deployment_scale(DEPLOYMENT, service.namespace, none)
    assert wait_until(lambda: not service.core.list_namespaced_pod(service.namespace).items, timeout_s=60)

    with pytest.raises(FaultRefused, match=f"{node}: no pod of the target is there"):
        planned("node_kubelet_stop", node=node, undo_after_s=200)

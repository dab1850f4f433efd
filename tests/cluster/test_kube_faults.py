"""Faults on the real cluster, one by one: what each refuses, what it leaves alone, and what it gives back.

Where chaostoolkit-kubernetes does something else, the test says what that is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from experiments.faults.fault import FaultRefused, load_fault
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import actions
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect, connect_to
from experiments.kube.cluster import Cluster
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_days import DEPLOYMENT, SELECTOR, Service, label_node, lent_node, serve, take_back
from tests.cluster.plan import KUBECONFIG_VARIABLE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def one_service(api: client.ApiClient, shared_namespace: str) -> Service:
    return serve(api, shared_namespace)


@pytest.fixture
def service(one_service: Service) -> Iterator[Service]:
    """The service of all these tests, whole, and with nothing beside it that a test has made."""
    one_service.await_ready()
    yield one_service
    space, core = one_service.namespace, one_service.core
    client.PolicyV1Api(one_service.api).delete_collection_namespaced_pod_disruption_budget(space)
    client.AppsV1Api(one_service.api).delete_collection_namespaced_daemon_set(space)
    others = {"label_selector": f"app notin ({DEPLOYMENT})"}
    core.delete_collection_namespaced_pod(space, **others)
    assert wait_until(lambda: not core.list_namespaced_pod(space, **others).items, timeout_s=30)


@pytest.fixture
def aim(service: Service) -> Iterator[Aim]:
    """Where actions choose from, as while a plan is made."""
    cluster = Cluster(namespaces=(service.namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])
    uid = connect(cluster).identity().uid
    pinned = Aim(name="inference", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0000", uid=uid)
    with aiming_at(pinned):
        yield pinned


@pytest.fixture
def node(service: Service) -> Iterator[str]:
    """A node that carries a replica, and that game days may hit."""
    name = lent_node(service)
    yield name
    take_back(service, name)


def planned(action: str, **arguments: object) -> list[JsonObject]:
    """Return what an action would hit."""
    with planning() as found:
        getattr(actions, action)(**arguments)
    return [captured for _, captured in found]


def inject(folder: Path, action: str, **arguments: object) -> JsonObject:
    """Carry an action out, with its ledger in a folder."""
    (captured,) = planned(action, **arguments)
    return inject_fault(load_fault(captured["kube_fault"]), captured, folder)


def is_cordoned(service: Service, node: str) -> bool:
    return bool(service.core.read_node(node).spec.unschedulable)


def pod(name: str, node: str, **spec: object) -> JsonObject:
    container = {"name": "main", "image": ENDPOINT_IMAGE, "imagePullPolicy": "Never"}
    whole = {"containers": [container], "nodeName": node, "terminationGracePeriodSeconds": 1}
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": whole | spec}


def mounts_memory(name: str) -> JsonObject:
    return {"volumes": [{"name": name, "emptyDir": {"medium": "Memory"}}]}


def test_oldest_and_by_node_choose_those_very_pods(service: Service, aim: Aim) -> None:
    victim, place = sorted(service.ready().items())[0]

    (by_node,) = planned("pod_kill", label_selector=SELECTOR, node=place)
    (by_share,) = planned("pod_kill", label_selector=SELECTOR, share=0.5, order="oldest")

    assert [row["name"] for row in by_node["victims"]] == [f"{service.namespace}/{victim}"]
    assert len(by_share["victims"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [{}, {"label_selector": "app=endpoin"}, {"label_selector": SELECTOR, "count": 4}],
    ids=["no selector", "a typo", "too many"],
)
def test_a_choice_of_nothing_is_refused_where_the_stock_action_kills_in_default_or_succeeds(
    service: Service, aim: Aim, arguments: JsonObject
) -> None:
    before = service.containers()

    with pytest.raises(FaultRefused):
        planned("pod_kill", **arguments)

    assert service.containers() == before


def test_a_drain_without_a_node_is_refused_where_the_stock_action_takes_every_node(aim: Aim) -> None:
    with pytest.raises(FaultRefused, match="which nodes"):
        planned("node_drain")


@pytest.fixture
def shared_memory(service: Service) -> Iterator[None]:
    """Meanwhile each pod mounts memory."""
    mount_memory(service, mounts_memory("shm"))
    yield
    mount_memory(service, {"volumes": [{"name": "shm", "$patch": "delete"}]})


def mount_memory(service: Service, change: JsonObject) -> None:
    apps, body = client.AppsV1Api(service.api), {"spec": {"template": {"spec": change}}}
    apps.patch_namespaced_deployment(DEPLOYMENT, service.namespace, body)

    def is_rolled_out() -> bool:
        found = apps.read_namespaced_deployment(DEPLOYMENT, service.namespace)
        status, is_heard = found.status, found.status.observed_generation == found.metadata.generation
        return bool(is_heard and status.updated_replicas == status.ready_replicas == status.replicas == 3)

    assert wait_until(is_rolled_out, timeout_s=60)


@pytest.mark.usefixtures("shared_memory")
def test_shared_memory_refuses_a_drain_unless_it_may_be_lost(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    with pytest.raises(FaultRefused, match="would lose its emptyDir shm"):
        planned("node_drain", node=node)
    assert not is_cordoned(service, node)
    inject(tmp_path, "node_drain", node=node, delete_emptydir_data=True)
    moved = node not in service.ready().values()
    undone = undo_pending(tmp_path, by="test")

    assert moved  # the stock drain passes over every such pod, and is green
    assert [each.is_restored for each in undone] == [True]
    assert not is_cordoned(service, node)


def test_pods_of_a_daemon_set_stay_whatever_they_mount(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    template = pod("exporter", "", **mounts_memory("cache"))
    del template["spec"]["nodeName"], template["metadata"]["name"]
    spec = {"selector": {"matchLabels": {"app": "exporter"}}, "template": template}
    client.AppsV1Api(service.api).create_namespaced_daemon_set(
        service.namespace, {"metadata": {"name": "exporter"}, "spec": spec}
    )
    query = {"label_selector": "app=exporter", "field_selector": f"spec.nodeName={node}"}
    core = service.core

    def exporters() -> list[str]:
        rows = core.list_namespaced_pod(service.namespace, **query).items
        return [row.metadata.uid for row in rows if row.status.phase == "Running"]

    assert wait_until(lambda: len(exporters()) == 1, timeout_s=60)
    before = exporters()
    inject(tmp_path, "node_drain", node=node)
    after, left = exporters(), [name for name, place in service.ready().items() if place == node]
    undo_pending(tmp_path, by="test")

    assert after == before
    assert [name.rsplit("-", 1)[0] for name in left] == ["exporter"]


def test_a_budget_that_never_lets_go_ends_at_the_deadline_with_the_node_given_back(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    selector = {"matchLabels": {"app": DEPLOYMENT}}
    client.PolicyV1Api(service.api).create_namespaced_pod_disruption_budget(
        service.namespace,
        {"metadata": {"name": "all"}, "spec": {"minAvailable": 3, "selector": selector}},
    )
    before = service.containers()

    with pytest.raises(TargetError, match=r"not let go within 3 s, asked [0-9]+ times"):
        inject(tmp_path, "node_drain", node=node, within_s=3)
    was_cordoned = is_cordoned(service, node)
    undo_pending(tmp_path, by="test")

    assert was_cordoned  # the stock drain leaves it so, at the first 429
    assert not is_cordoned(service, node)
    assert service.containers() == before


def test_a_pod_without_a_controller_refuses_a_drain_before_anything_is_touched(
    service: Service, aim: Aim, node: str
) -> None:
    service.core.create_namespaced_pod(service.namespace, pod("bare", node))

    with pytest.raises(FaultRefused, match="bare has no controller"):
        planned("node_drain", node=node)

    assert not is_cordoned(service, node)  # the stock drain raises a TypeError, its nodes cordoned


def test_a_node_that_somebody_else_had_cordoned_stays_cordoned(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    service.core.patch_node(node, {"spec": {"unschedulable": True}})

    with pytest.raises(FaultRefused, match="is cordoned already"):
        planned("node_cordon", node=node)
    inject(tmp_path, "node_drain", node=node)
    (undone,) = undo_pending(tmp_path, by="test")

    assert undone.is_restored
    assert is_cordoned(service, node)


def test_a_cordon_is_taken_back_and_seen_meanwhile(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    inject(tmp_path, "node_cordon", node=node)
    meanwhile = actions.nodes_schedulable(nodes=[node])
    undo_pending(tmp_path, by="test")

    assert meanwhile == {"outcome": "fail", "nodes": {node: "cordoned"}}  # to the stock probe it is ready
    assert actions.nodes_schedulable(nodes=[node])["outcome"] == "pass"
    assert undo_pending(tmp_path, by="test") == []


def test_a_node_with_pods_of_others_and_one_without_a_label_are_refused(
    service: Service, aim: Aim, node: str
) -> None:
    label_node(service.api, node, None)
    with pytest.raises(FaultRefused, match="is not labelled"):
        planned("node_cordon", node=node)
    label_node(service.api, node, "allowed")
    other = f"{service.namespace}-other"
    service.core.create_namespace({"metadata": {"name": other}})
    try:
        assert wait_until(lambda: _has_account(service, other), timeout_s=30)
        service.core.create_namespaced_pod(other, pod("tenant", node))
        with pytest.raises(FaultRefused, match=f"namespaces that are not the target's: .*{other}/tenant"):
            planned("node_drain", node=node)
    finally:
        service.core.delete_namespace(other)


def _has_account(service: Service, namespace: str) -> bool:
    names = [row.metadata.name for row in service.core.list_namespaced_service_account(namespace).items]
    return "default" in names


def test_another_cluster_under_the_same_name_is_not_touched(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    (captured,) = planned("pod_kill", label_selector=SELECTOR)
    captured["identity"] = captured["identity"] | {"uid": "00000000-0000-0000-0000-000000000000"}
    before = service.containers()

    with pytest.raises(TargetError, match="is not the cluster that was planned"):
        inject_fault(load_fault("pod.kill"), captured, tmp_path)
    with pytest.raises(TargetError, match="is not the cluster that was planned"):
        connect_to(aim.cluster, "another")

    assert service.containers() == before


def test_an_evicted_pod_is_seen_gone_and_its_replacement_ready(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    (captured,) = planned("pod_evict", label_selector=SELECTOR)
    victim = captured["victims"][0]["name"].partition("/")[2]

    inject_fault(load_fault("pod.evict"), captured, tmp_path)
    service.await_ready()
    (undone,) = undo_pending(tmp_path, by="test")

    assert undone.is_restored
    assert "3 of 3 ready" in undone.did
    assert victim not in service.ready()


def test_probes_tell_who_serves_and_who_waits_and_why(service: Service, aim: Aim, tmp_path: Path) -> None:
    assert actions.replicas_ready(deployment=DEPLOYMENT, within_s=30)["outcome"] == "pass"
    # Endpoints are listed by a controller of their own, a little after their pods are ready.
    assert wait_until(
        lambda: actions.service_serves(service="endpoint", endpoints_min=3)["outcome"] == "pass", timeout_s=30
    )
    assert actions.no_pods_wait()["outcome"] == "pass"

    inject(tmp_path, "deployment_bad_rollout", deployment=DEPLOYMENT)
    waiting = actions.no_pods_wait()
    undo_pending(tmp_path, by="test")

    assert waiting["outcome"] == "fail"
    assert all("Image" in why for why in waiting["waiting"].values())

"""What chaostoolkit-kubernetes does on the real cluster, and what ours does in its place: side by side.

One small workload for all of it. The stock actions take every node where nobody says which, so they are only
let loose on a cluster that was started for the tests.
"""

from __future__ import annotations

import itertools
import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaosk8s import create_k8s_api_client
from chaosk8s.node import actions as stock_nodes
from chaosk8s.node import probes as stock_node_probes
from chaosk8s.pod import actions as stock_pods
from chaoslib.exceptions import ActivityFailed
from kubernetes import client

from experiments.faults.fault import FaultRefused, load_fault
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import actions
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.choosing.choice import choose_nodes
from experiments.kube.client import KubeClient, connect
from experiments.kube.cluster import ALLOWED_LABEL, Cluster
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.cluster.dead_man import api_of, apply
from tests.cluster.kube_days import Service, allow_namespace, lent_node, take_back
from tests.cluster.node import PAUSE_IMAGE
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts
from tests.cluster.workload import evictions_refused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

APP, EXPORTER = "endpoint", "exporter"
SELECTOR = f"app={APP}"
REPLICAS = 4  # on three nodes: one of them carries two


@pytest.fixture(scope="module")
def service(api: client.ApiClient, hosts: Hosts) -> Iterator[Service]:
    """Four pods that do nothing, and one of a DaemonSet on each node; all with shared memory."""
    name, core, apps = f"stock-{secrets.token_hex(3)}", client.CoreV1Api(api), client.AppsV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    allow_namespace(api, name)
    apps.create_namespaced_deployment(name, _workload(APP, replicas=REPLICAS))
    apps.create_namespaced_daemon_set(name, _workload(EXPORTER))
    found = Service(api=api, namespace=name, url="")
    found.await_ready(REPLICAS + hosts.plan.node_count)
    yield found
    core.delete_namespace(name)


def _workload(name: str, **more: object) -> JsonObject:
    labels = {"app": name}
    volume = {"name": "shm", "emptyDir": {"medium": "Memory"}}
    containers = [{"name": "main", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}]
    pod = {"containers": containers, "volumes": [volume], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template} | more,
    }


@pytest.fixture
def aim(service: Service, hosts: Hosts) -> Iterator[Aim]:
    """Where ours choose from, and where the stock ones look; every node takes pods again afterwards."""
    kubeconfig = os.environ[KUBECONFIG_VARIABLE]
    cluster = Cluster(namespaces=(service.namespace,), kubeconfig=kubeconfig)
    uid = connect(cluster).identity().uid
    with create_k8s_api_client() as theirs:
        seen = client.CoreV1Api(theirs).read_namespace("kube-system").metadata.uid
    assert seen == uid, "the stock actions would hit another cluster"
    pinned = Aim(name="stock", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0000", uid=uid)
    with aiming_at(pinned):
        yield pinned
    stock_nodes.uncordon_node(label_selector="kubernetes.io/os=linux")
    service.await_ready(REPLICAS + hosts.plan.node_count)


@pytest.fixture
def node(service: Service, aim: Aim) -> Iterator[str]:
    """A node with such a pod, that game days may hit."""
    name = lent_node(service, among=lambda name: bool(uids(service, APP, name)))
    yield name
    take_back(service, name)


def planned(action: str, **arguments: object) -> list[JsonObject]:
    with planning() as found:
        getattr(actions, action)(**arguments)
    return [captured for _, captured in found]


def inject(folder: Path, action: str, **arguments: object) -> JsonObject:
    (captured,) = planned(action, **arguments)
    return inject_fault(load_fault(captured["kube_fault"]), captured, folder)


def uids(service: Service, app: str, node: str = "") -> set[str]:
    """Return the pods of a workload that stay, on one node or on all."""
    rows = service.core.list_namespaced_pod(service.namespace, label_selector=f"app={app}").items
    staying = [row for row in rows if row.metadata.deletion_timestamp is None]
    return {row.metadata.uid for row in staying if node in ("", row.spec.node_name)}


def is_cordoned(service: Service, node: str) -> bool:
    return bool(service.core.read_node(node).spec.unschedulable)


def cordoned(service: Service) -> list[str]:
    return [row.metadata.name for row in service.core.list_node().items if row.spec.unschedulable]


@pytest.fixture
def budget(service: Service) -> Iterator[Callable[[int], None]]:
    """A disruption budget over the pods that lets none go; what is returned sets how many have to stay."""
    budgets = client.PolicyV1Api(service.api)
    spec = {"minAvailable": REPLICAS, "selector": {"matchLabels": {"app": APP}}}
    budgets.create_namespaced_pod_disruption_budget(
        service.namespace, {"metadata": {"name": APP}, "spec": spec}
    )

    def is_known() -> bool:
        found = budgets.read_namespaced_pod_disruption_budget(APP, service.namespace)
        return bool(found.status and found.status.expected_pods == REPLICAS)

    assert wait_until(is_known, timeout_s=30)
    yield lambda left: budgets.patch_namespaced_pod_disruption_budget(
        APP, service.namespace, {"spec": {"minAvailable": left}}
    )
    budgets.delete_namespaced_pod_disruption_budget(APP, service.namespace)


def test_shared_memory_stays_where_it_is_under_the_stock_drain_and_moves_under_ours(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    ours, exporter = uids(service, APP, node), uids(service, EXPORTER, node)

    stock_nodes.drain_nodes(name=node, timeout=30)
    after_stock = uids(service, APP, node)
    stock_nodes.uncordon_node(name=node)
    with pytest.raises(FaultRefused, match="would lose its emptyDir shm"):
        planned("node_drain", node=node)
    inject(tmp_path, "node_drain", node=node, delete_emptydir_data=True)
    after_ours = uids(service, APP, node)
    undone = undo_pending(tmp_path, by="test")

    assert ours
    assert after_stock == ours  # it has drained nothing, and says that all is well
    assert after_ours == set()
    assert uids(service, EXPORTER, node) == exporter
    assert [each.is_restored for each in undone] == [True]


def test_pods_of_a_daemon_set_are_evicted_by_the_stock_drain_that_takes_memory_too(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    before = uids(service, EXPORTER, node)

    inject(tmp_path, "node_drain", node=node, delete_emptydir_data=True)
    after_ours = uids(service, EXPORTER, node)
    undo_pending(tmp_path, by="test")
    stock_nodes.drain_nodes(name=node, delete_pods_with_local_storage=True, timeout=30)
    after_stock = uids(service, EXPORTER, node)

    assert len(before) == 1
    assert after_ours == before
    assert not before & after_stock


def test_the_first_no_of_a_budget_breaks_the_stock_drain_and_is_asked_again_by_ours(
    service: Service, aim: Aim, node: str, tmp_path: Path, budget: Callable[[int], None]
) -> None:
    with pytest.raises(ActivityFailed, match="Failed to evict pod"):
        stock_nodes.drain_nodes(name=node, delete_pods_with_local_storage=True, timeout=30)
    is_left_cordoned = is_cordoned(service, node)
    stock_nodes.uncordon_node(name=node)
    service.await_ready(REPLICAS + len(service.core.list_node().items))

    before = evictions_refused(service.api)

    def let_go() -> None:
        wait_until(lambda: evictions_refused(service.api) > before, timeout_s=50, interval_s=1)
        budget(1)

    owner = threading.Thread(target=let_go)
    owner.start()
    done = inject(tmp_path, "node_drain", node=node, delete_emptydir_data=True, within_s=60)
    owner.join()
    undo_pending(tmp_path, by="test")

    assert is_left_cordoned
    assert "a disruption budget said no first" in str(done["verified"])
    assert not is_cordoned(service, node)


def test_every_node_of_a_rack_is_cordoned_before_the_first_pod_has_to_go(
    service: Service, aim: Aim, node: str, tmp_path: Path, budget: Callable[[int], None]
) -> None:
    other, before = lent_node(service, among=lambda name: name != node), uids(service, APP)
    try:
        (captured,) = planned(
            "node_drain",
            label_selector=f"{ALLOWED_LABEL}=allowed",
            count=2,
            delete_emptydir_data=True,
            within_s=2,
        )
        with pytest.raises(TargetError, match="not let go within 2 s"):
            inject_fault(load_fault("node.drain"), captured, tmp_path)
        cordoned_meanwhile = cordoned(service)
        undone = undo_pending(tmp_path, by="test")
    finally:
        take_back(service, other)

    assert sorted(row["name"] for row in captured["victims"]) == sorted([node, other])
    assert cordoned_meanwhile == sorted([node, other])
    assert uids(service, APP) == before
    assert [each.is_restored for each in undone] == [True]
    assert cordoned(service) == []


def test_a_pod_without_an_owner_breaks_the_stock_drain_and_is_named_by_ours(
    service: Service, aim: Aim, node: str
) -> None:
    container = {"name": "main", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    spec = {"containers": [container], "nodeName": node, "terminationGracePeriodSeconds": 0}
    body = {"metadata": {"name": "bare"}, "spec": spec}
    service.core.create_namespaced_pod(service.namespace, body)
    try:
        with pytest.raises(TypeError):
            stock_nodes.drain_nodes(name=node, timeout=30)
        is_left_cordoned = is_cordoned(service, node)
        stock_nodes.uncordon_node(name=node)
        with pytest.raises(FaultRefused, match="bare has no controller"):
            planned("node_drain", node=node, delete_emptydir_data=True)
    finally:
        service.core.delete_namespaced_pod("bare", service.namespace, grace_period_seconds=0)

    assert is_left_cordoned
    assert not is_cordoned(service, node)


def test_without_a_selector_the_stock_actions_take_every_node_and_ours_none(
    service: Service, aim: Aim
) -> None:
    every = [row.metadata.name for row in service.core.list_node().items]

    stock_nodes.cordon_node()
    by_stock = cordoned(service)
    stock_nodes.uncordon_node()
    for action in ("node_cordon", "node_drain"):
        with pytest.raises(FaultRefused, match="which nodes"):
            planned(action)

    assert by_stock == every
    assert cordoned(service) == []


def test_so_many_nodes_are_so_many_and_not_one_of_them_twice(service: Service, aim: Aim) -> None:
    every = "kubernetes.io/os=linux"
    seed = next(s for s in itertools.count() if len({*random.Random(s).choices(range(3), k=3)}) < 3)

    random.seed(seed)
    by_stock = [row.metadata.name for row in stock_nodes._select_nodes(label_selector=every, count=3)]
    ours, _ = choose_nodes(connect(aim.cluster), aim, node="", label_selector=every, count=3)

    assert len(by_stock) == 3 > len({*by_stock})
    assert len({row["metadata"]["name"] for row in ours}) == 3


def test_a_node_with_two_such_pods_is_one_node(service: Service, aim: Aim) -> None:
    carrying = {
        row.metadata.name for row in service.core.list_node().items if uids(service, APP, row.metadata.name)
    }

    picked = stock_nodes._select_nodes(pod_label_selector=SELECTOR, pod_namespace=service.namespace)
    ours, others = choose_by_pods(connect(aim.cluster), aim, count=len(carrying))

    assert len(picked) == REPLICAS > len({row.metadata.name for row in picked})
    assert sorted(row["metadata"]["name"] for row in ours) == sorted(carrying)
    assert len(others) == 3 - len(carrying)
    with pytest.raises(FaultRefused, match=f"{SELECTOR}: {len(carrying)} nodes match"):
        choose_by_pods(connect(aim.cluster), aim, count=len(carrying) + 1)


def choose_by_pods(
    client_of: KubeClient, aim: Aim, *, count: int
) -> tuple[list[JsonObject], list[JsonObject]]:
    return choose_nodes(client_of, aim, node="", label_selector="", pod_label_selector=SELECTOR, count=count)


def test_a_typo_in_a_label_kills_nothing_and_only_ours_says_so(service: Service, aim: Aim) -> None:
    before = uids(service, APP)

    killed = stock_pods.terminate_pods(label_selector="app=endpoin", ns=service.namespace)
    with pytest.raises(FaultRefused, match="0 ready pods match"):
        planned("pod_kill", label_selector="app=endpoin")

    assert killed == []
    assert uids(service, APP) == before


def test_a_node_that_an_admin_has_cordoned_is_uncordoned_by_the_stock_roll_back_only(
    service: Service, aim: Aim, node: str, tmp_path: Path
) -> None:
    service.core.patch_node(node, {"spec": {"unschedulable": True}})

    with pytest.raises(FaultRefused, match="is cordoned already"):
        planned("node_cordon", node=node)
    inject(tmp_path, "node_drain", node=node, delete_emptydir_data=True)
    undo_pending(tmp_path, by="test")
    after_ours = is_cordoned(service, node)
    stock_nodes.cordon_node(name=node)
    stock_nodes.uncordon_node(name=node)

    assert after_ours
    assert not is_cordoned(service, node)


def test_a_cordoned_node_is_fine_to_the_stock_probe(service: Service, aim: Aim, node: str) -> None:
    service.core.patch_node(node, {"spec": {"unschedulable": True}})

    assert stock_node_probes.all_nodes_must_be_ready_to_schedule() is True
    assert actions.nodes_schedulable(nodes=[node]) == {"outcome": "fail", "nodes": {node: "cordoned"}}


def test_chosen_pods_can_only_be_killed_past_their_budget_by_the_stock_actions_and_evicted_by_ours(
    service: Service, aim: Aim, tmp_path: Path, budget: Callable[[int], None]
) -> None:
    before = uids(service, APP)

    with pytest.raises(TargetError, match="not let go within 2 s"):
        inject(tmp_path, "pod_evict", label_selector=SELECTOR, within_s=2)
    after_ours = uids(service, APP)
    undo_pending(tmp_path, by="test")
    stock_pods.terminate_pods(label_selector=SELECTOR, ns=service.namespace, grace_period=1)
    after_stock = uids(service, APP)

    assert after_ours == before
    assert len(before - after_stock) == 1
    assert not any("evict" in name for module in (stock_nodes, stock_pods) for name in module.__all__)


def test_a_fault_within_pods_without_a_container_is_nowhere_under_the_stock_action(
    service: Service, aim: Aim
) -> None:
    done = stock_pods.exec_in_pods("true", label_selector=SELECTOR, all=True, ns=service.namespace)
    apply(api_of(os.environ[KUBECONFIG_VARIABLE]), "namespace")
    (ours,) = planned("container_kill", label_selector=SELECTOR)

    assert done == []  # and green
    assert [row["container"] for row in ours["containers"]] == ["main"]


def test_all_nodes_cannot_be_deleted_by_the_stock_action_which_breaks(service: Service, aim: Aim) -> None:
    before = [row.metadata.name for row in service.core.list_node().items]

    with pytest.raises(TypeError):
        stock_nodes.delete_nodes(all=True)

    assert [row.metadata.name for row in service.core.list_node().items] == before

"""Containers killed and hung on the real cluster: seen in the kernel, healed by liveness, never left so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from experiments.faults.fault import FaultRefused, load_fault
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import STRATEGIC, connect
from experiments.kube.cluster import Cluster
from experiments.kube.containers.hand_pod import LABEL
from experiments.kube.service.lab import put_up
from experiments.kube.service.objects import ServicePlan
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.dead_man import api_of, apply
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_days import (
    Service,
    decided_day,
    has_its_times,
    lent_node,
    outcome_of,
    run_day,
    take_back,
    told,
    write_day,
)
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.test_kube_faults import planned
from tests.cluster.workload import replica_that_answers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

PYTHON = f"python3.{sys.version_info.minor}"
HAND = {"image": ENDPOINT_IMAGE, "python": PYTHON}
SELECTOR = "app=chat"


@pytest.fixture(scope="module")
def shared(api: client.ApiClient) -> Iterator[Service]:
    """The shipped service with the probes that it is shipped with, for all tests here."""
    name = f"lab-{os.urandom(3).hex()}"
    apply(api_of(os.environ[KUBECONFIG_VARIABLE]), "namespace")
    kube = connect(Cluster(namespaces=(), kubeconfig=os.environ[KUBECONFIG_VARIABLE]))
    try:
        # It loads, as a model does; else too little traffic meets the gap.
        plan = ServicePlan(image=ENDPOINT_IMAGE, namespace=name, python=PYTHON, load_s=5)
        state = put_up(kube, plan, within_s=120)
        # This machine's way to a new Service is made by a kube-proxy, when it gets to it.
        assert wait_until(lambda: replica_that_answers(state["url"]) is not None, timeout_s=30)
        yield Service(api=api, namespace=name, url=state["url"])
    finally:
        client.CoreV1Api(api).delete_namespace(name)


@pytest.fixture
def service(shared: Service) -> Service:
    """The service, as soon as it is whole."""
    shared.await_ready()
    return shared


@pytest.fixture(scope="module")
def unwatched(shared: Service) -> None:
    """From now on no liveness probe, as many services have none or one that asks for nothing."""
    without_liveness(shared)


@pytest.fixture
def aim(service: Service) -> Iterator[Aim]:
    """Where actions choose from, as while a plan is made."""
    cluster = Cluster(namespaces=(service.namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])
    uid = connect(cluster).identity().uid
    with aiming_at(
        Aim(name="t", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0000", uid=uid)
    ) as it:
        yield it  # type: ignore[misc]


def without_liveness(service: Service) -> None:
    """Take the liveness probe away, and wait until every pod is without it."""
    kube = connect(Cluster(namespaces=(), kubeconfig=os.environ[KUBECONFIG_VARIABLE]))
    container = {"name": "chat", "livenessProbe": None}
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments/chat"
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    kube.ask("PATCH", path, body=body, content_type=STRATEGIC)
    apps = client.AppsV1Api(service.api)

    def is_rolled_out() -> bool:
        found = apps.read_namespaced_deployment("chat", service.namespace)
        seen = found.status
        is_seen = seen.observed_generation == found.metadata.generation
        return bool(is_seen and seen.updated_replicas == seen.ready_replicas == seen.replicas == 3)

    assert wait_until(is_rolled_out, timeout_s=120)


def container_of(service: Service, name: str) -> tuple[str, int]:
    """Return which container of a pod runs, and how often it was started again."""
    (seen,) = service.core.read_namespaced_pod(name, service.namespace).status.container_statuses
    return seen.container_id if seen.state.running else "", seen.restart_count


def restarts_of(service: Service) -> dict[str, int]:
    """Return how often each pod's container was started again."""
    return {name: container_of(service, name)[1] for name in service.containers()}


def hands_left(service: Service) -> list[str]:
    """Return the hands that are on a node, those about to go apart."""
    rows = service.core.list_namespaced_pod("overproof", label_selector=LABEL).items
    return [each.metadata.name for each in rows if each.metadata.deletion_timestamp is None]


def on_the_shipped_service(document: JsonObject) -> None:
    """Name the shipped service, and from what hands are started here."""
    document["steady-state-hypothesis"]["probes"][0]["provider"]["arguments"] = {"deployment": "chat"}
    document["method"][0]["provider"]["arguments"] |= {"label_selector": SELECTOR, "hand": HAND}


def inject(folder: Path, action: str, **arguments: object) -> JsonObject:
    """Carry an action out, with its ledger in a folder; return what was captured."""
    (captured,) = planned(action, label_selector=SELECTOR, hand=HAND, **arguments)
    inject_fault(load_fault(captured["kube_fault"]), captured, folder)
    return captured


def test_a_hang_is_noticed_by_liveness_on_generation_and_the_day_passes(
    service: Service, tmp_path: Path
) -> None:
    service.renew()

    day = write_day(tmp_path, "container-hang", service, on_the_shipped_service)
    status, run = decided_day(day, before_again=service.renew)

    (fault,) = [f for f in run.findings if f.rule == "fault"]
    assert status == 0, told(run)
    assert has_its_times(run)
    assert sorted(restarts_of(service).values()) == [0, 0, 1]
    assert "is in state T" in fault.observed
    assert wait_until(lambda: not hands_left(service), timeout_s=30)


def test_a_killed_container_is_started_again_in_its_pod_and_the_day_passes(
    service: Service, tmp_path: Path
) -> None:
    service.renew()

    day = write_day(tmp_path, "container-kill", service, on_the_shipped_service)
    status, run = decided_day(day, before_again=service.renew)

    assert status == 0, told(run)
    assert sorted(restarts_of(service).values()) == [0, 0, 1]


def test_a_container_that_is_not_the_planned_one_any_more_is_not_hit(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    (captured,) = planned("container_kill", label_selector=SELECTOR, hand=HAND)
    captured["containers"][0]["id"] = "0" * 64
    before = restarts_of(service)

    with pytest.raises(FaultRefused, match="is another one by now"):
        inject_fault(load_fault("container.kill"), captured, tmp_path)
    with pytest.raises(FaultRefused, match="no container engine runs in it"):
        planned("container_kill", label_selector=SELECTOR, container="engine")
    assert restarts_of(service) == before


def test_a_node_is_pressed_by_a_pod_that_goes_when_it_is_undone(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    node, before = lent_node(service), restarts_of(service)
    wanted = {"cores": 1, "memory_mib": 32, "disk_mib": 8}
    try:
        (captured,) = planned("node_pressure", node=node, hand=HAND, for_s=120, **wanted)
        inject_fault(load_fault("node.pressure"), captured, tmp_path)
        pressing = hands_left(service)
        (undone,) = undo_pending(tmp_path, by="test")
        with pytest.raises(FaultRefused, match="at most 90% may be taken"):
            planned("node_pressure", node=node, hand=HAND, memory_mib=1 << 30)
    finally:
        take_back(service, node)

    assert captured["taken"] == {"did": "press", "t_ns": captured["t_hit_ns"]} | wanted
    assert len(pressing) == 1
    assert undone.is_restored
    assert hands_left(service) == []
    assert restarts_of(service) == before


@pytest.mark.usefixtures("unwatched")
def test_without_a_liveness_probe_a_hang_fails_the_day_and_is_ended_by_undoing(
    service: Service, tmp_path: Path
) -> None:
    def soon(document: JsonObject) -> None:
        on_the_shipped_service(document)
        document["method"][1]["provider"]["arguments"]["within_s"] = 20
        document["extensions"][0]["recovery_s"] = 15

    before = restarts_of(service)

    status, run = run_day(write_day(tmp_path, "container-hang", service, soon))

    service.await_ready(timeout_s=30)
    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail", told(run)
    assert outcome_of(run, "undo") == "pass", told(run)
    assert restarts_of(service) == before


@pytest.mark.usefixtures("unwatched")
def test_a_hung_container_is_stopped_in_the_kernel_and_goes_on_when_it_is_undone(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    captured = inject(tmp_path, "container_hang", for_s=120)
    (row,) = captured["containers"]
    was_taken_out = wait_until(lambda: row["pod"] not in service.ready(), timeout_s=30)
    (undone,) = undo_pending(tmp_path, by="test")
    again = undo_pending(tmp_path, by="test")

    assert set(captured["states"][0].values()) == {"T"}
    assert any("no liveness probe" in said for said in captured["carries"])
    assert was_taken_out
    assert undone.is_restored, undone.did
    assert "go on" in undone.did
    assert again == []
    assert wait_until(lambda: row["pod"] in service.ready(), timeout_s=30)
    assert container_of(service, row["pod"])[0] == f"containerd://{row['id']}"
    assert wait_until(lambda: not hands_left(service), timeout_s=30), hands_left(service)


@pytest.mark.usefixtures("unwatched")
def test_a_hung_container_goes_on_by_its_node_alone_when_nobody_undoes_it(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    captured = inject(tmp_path, "container_hang", for_s=8)
    (row,) = captured["containers"]
    was_taken_out = wait_until(lambda: row["pod"] not in service.ready(), timeout_s=30)
    is_back = wait_until(lambda: row["pod"] in service.ready(), timeout_s=40)
    (undone,) = undo_pending(tmp_path, by="test")

    assert was_taken_out
    assert is_back
    assert container_of(service, row["pod"])[0] == f"containerd://{row['id']}"
    assert undone.is_restored


@pytest.mark.usefixtures("unwatched")
def test_a_hung_container_that_no_hand_can_reach_any_more_loses_its_pod(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    captured = inject(tmp_path, "container_hang", for_s=200)
    (row,) = captured["containers"]
    unreachable = captured | {"hand": captured["hand"] | {"image": "overproof.invalid/no:0", "within_s": 5.0}}

    undoing = load_fault("container.hang").undo(unreachable)

    assert undoing.is_restored, undoing.did
    assert undoing.has_acted
    assert "so it was deleted" in undoing.did
    assert row["pod"] not in service.ready()

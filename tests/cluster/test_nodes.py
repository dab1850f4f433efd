"""Workers of the real cluster that fall silent: what the platform does, and by which of its clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kubernetes import client

from probes.child import wait_until
from tests.cluster.running import Hosts
from tests.cluster.workload import (
    containers,
    deploy,
    diagnosis,
    is_node_ready,
    is_node_well,
    ready_pods,
    replica_that_answers,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NODE = "node-2"


@pytest.fixture
def healed(hosts: Hosts, api: client.ApiClient) -> Iterator[None]:
    """Whatever a test does to the node, the next one finds it well."""
    yield
    hosts.mend(NODE)
    hosts.switch_on(NODE)
    hosts.start_service(NODE, "kubelet")
    assert wait_until(lambda: is_node_well(api, NODE), timeout_s=60)


def await_(condition: Callable[[], bool], *, timeout_s: float, tell: Callable[[], str]) -> None:
    assert wait_until(condition, timeout_s=timeout_s), tell()


def silent_s(api: client.ApiClient, node: str) -> float:
    """Return for how long a node has not renewed its lease: from then on the cluster's clocks count."""
    lease = client.CoordinationV1Api(api).read_namespaced_lease(node, "kube-node-lease")
    return time.time() - float(lease.spec.renew_time.timestamp())


@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize("fault", ["kubelet", "wire"])
def test_pods_of_a_silent_node_come_back_elsewhere_by_the_clocks_of_the_cluster(
    api: client.ApiClient, hosts: Hosts, namespace: str, fault: str
) -> None:
    url, tell = deploy(api, namespace, replicas=3), diagnosis(api, namespace)
    await_(lambda: len(ready_pods(api, namespace)) == 3, timeout_s=60, tell=tell)
    on_node = {pod for pod, node in ready_pods(api, namespace).items() if node == NODE}
    assert on_node
    clocks = hosts.plan.clocks

    if fault == "kubelet":
        hosts.stop_service(NODE, "kubelet")
    else:
        hosts.cut(NODE)
    await_(lambda: not is_node_ready(api, NODE), timeout_s=60, tell=tell)
    not_ready_s = silent_s(api, NODE)
    await_(lambda: len(set(ready_pods(api, namespace)) - on_node) >= 3, timeout_s=90, tell=tell)
    elsewhere_s = silent_s(api, NODE)

    assert not_ready_s >= clocks.node_monitor_grace_s
    assert elsewhere_s >= clocks.node_monitor_grace_s + clocks.toleration_s
    assert wait_until(lambda: replica_that_answers(url) is not None, timeout_s=30)


@pytest.mark.usefixtures("healed")
def test_containers_outlive_their_kubelet_and_their_node_comes_back(
    api: client.ApiClient, hosts: Hosts, namespace: str
) -> None:
    deploy(api, namespace, replicas=3)
    await_(lambda: len(ready_pods(api, namespace)) == 3, timeout_s=60, tell=diagnosis(api, namespace))
    before = containers(api, namespace)

    hosts.stop_service(NODE, "kubelet")
    time.sleep(3)
    hosts.start_service(NODE, "kubelet")
    time.sleep(3)

    assert containers(api, namespace) == before
    assert wait_until(lambda: len(ready_pods(api, namespace)) == 3, timeout_s=30)


@pytest.mark.usefixtures("healed")
def test_a_node_without_power_comes_back_with_it(api: client.ApiClient, hosts: Hosts, namespace: str) -> None:
    tell = diagnosis(api, namespace)

    hosts.switch_off(NODE)
    await_(lambda: not is_node_ready(api, NODE), timeout_s=60, tell=tell)
    hosts.switch_on(NODE)
    await_(lambda: is_node_ready(api, NODE), timeout_s=60, tell=tell)

    deploy(api, namespace, replicas=3)
    await_(lambda: NODE in ready_pods(api, namespace).values(), timeout_s=60, tell=tell)

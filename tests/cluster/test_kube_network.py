"""Faults of the cluster's network on the real cluster: what takes hold, what does not, what is given back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client

from experiments.faults.fault import FaultRefused, load_fault
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import network_actions
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE, Cluster
from experiments.kube.network import PARTITION_LABEL
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.cluster.kube_days import (
    SELECTOR,
    Service,
    decided_day,
    kill_in_the_middle,
    outcome_of,
    serve,
    told,
    watch_over,
    write_day,
)
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts
from tests.cluster.workload import PORT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture
def service(api: client.ApiClient, namespace: str) -> Service:
    return serve(api, namespace)


@pytest.fixture
def aim(service: Service) -> Iterator[Aim]:
    """Where actions choose from, as while a plan is made."""
    cluster = Cluster(namespaces=(service.namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])
    uid = connect(cluster).identity().uid
    pinned = Aim(name="inference", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0000", uid=uid)
    with aiming_at(pinned):
        yield pinned


def planned(action: str, **arguments: object) -> JsonObject:
    """Return what an action would hit."""
    with planning() as found:
        getattr(network_actions, action)(**arguments)
    ((_, captured),) = found
    return captured


def inject(folder: Path, captured: JsonObject) -> JsonObject:
    return inject_fault(load_fault(captured["kube_fault"]), captured, folder)


def policies(service: Service) -> list[str]:
    found = client.NetworkingV1Api(service.api).list_namespaced_network_policy(service.namespace)
    return [each.metadata.name for each in found.items]


def labelled(service: Service) -> list[str]:
    pods = service.core.list_namespaced_pod(service.namespace, label_selector=PARTITION_LABEL)
    return [pod.metadata.name for pod in pods.items]


def test_a_network_that_does_not_enforce_policies_leaves_the_day_undecided_and_nothing_behind(
    service: Service, tmp_path: Path
) -> None:
    def change(document: JsonObject) -> None:
        del document["method"][0]["pauses"]

    status, run = decided_day(write_day(tmp_path, "pods-partition", service, change), tries=1)

    (fault,) = [f for f in run.findings if f.rule == "fault"]
    assert status == 3, told(run)
    assert outcome_of(run, "fault") == "inconclusive"
    assert "still answer" in fault.observed
    assert outcome_of(run, "undo") == "pass", told(run)
    assert (policies(service), labelled(service)) == ([], [])


@contextmanager
def enforcing(service: Service, hosts: Hosts) -> Iterator[dict[str, str]]:
    """Do what a network plugin does with a policy, as the one of this cluster does not.

    Gives the node of each address that is cut off.
    """
    stopping, cut = threading.Event(), dict[str, str]()

    def drop(node: str, address: str, flag: str) -> None:
        hosts.ask(node, "iptables", flag, "FORWARD", "-d", address, "-j", "DROP")

    def follow() -> None:
        while not stopping.wait(0.3):
            is_made = bool(policies(service))
            rows = service.core.list_namespaced_pod(service.namespace, label_selector=PARTITION_LABEL).items
            wanted = {pod.status.pod_ip: pod.spec.node_name for pod in rows if is_made}
            for address in wanted.keys() ^ cut.keys():
                if address in wanted:
                    drop(wanted[address], address, "-I")
                    cut[address] = wanted[address]
                else:
                    drop(cut.pop(address), address, "-D")

    plugin = threading.Thread(target=follow)
    plugin.start()
    try:
        yield cut
    finally:
        stopping.set()
        plugin.join()
        for address, node in cut.items():
            drop(node, address, "-D")


def test_a_pod_that_is_cut_off_is_seen_to_be_where_the_network_enforces_policies(
    service: Service, aim: Aim, tmp_path: Path, hosts: Hosts
) -> None:
    captured = planned("pods_partition", label_selector=SELECTOR, port=PORT)
    (pod,) = captured["hit_pods"]

    with enforcing(service, hosts):
        injected = inject(tmp_path, captured)
        cut = (policies(service), labelled(service))
        undone = undo_pending(tmp_path, by="test")
        again = undo_pending(tmp_path, by="test")
        is_let_on = wait_until(lambda: service.ready().keys() >= {pod["name"]}, timeout_s=30)

    assert "no answer from" in injected["verified"]
    assert (len(cut[0]), cut[1]) == (1, [pod["name"]])
    assert [each.is_restored for each in undone] == [True]
    assert again == []
    assert is_let_on
    assert (policies(service), labelled(service)) == ([], [])


@pytest.mark.usefixtures("aim")
def test_pods_that_nobody_can_ask_are_refused_before_anything_is_made(service: Service) -> None:
    with pytest.raises(FaultRefused, match="does not answer at port 81 now"):
        planned("pods_partition", label_selector=SELECTOR, port=81)
    with pytest.raises(FaultRefused, match="egress alone cannot be seen"):
        planned("pods_partition", label_selector=SELECTOR, port=PORT, direction="egress")

    assert policies(service) == []


@pytest.mark.usefixtures("aim")
def test_the_dns_is_taken_away_only_where_its_owner_says_so_and_is_given_back_ready(
    api: client.ApiClient, service: Service, tmp_path: Path
) -> None:
    """A deployment stands in for CoreDNS: what is tested is who may take it away, and that it comes back."""
    apps, dns = client.AppsV1Api(api), f"dns-{service.namespace}"
    labels = {"k8s-app": dns}
    template = apps.read_namespaced_deployment("endpoint", service.namespace).spec.template
    template.metadata.labels = labels
    template.spec.topology_spread_constraints = None
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    apps.create_namespaced_deployment("kube-system", {"metadata": {"name": dns}, "spec": spec})

    def ready() -> int:
        return apps.read_namespaced_deployment(dns, "kube-system").status.ready_replicas or 0

    try:
        assert wait_until(lambda: ready() == 2, timeout_s=60)
        with pytest.raises(FaultRefused, match="is not labelled"):
            planned("dns_away", deployment=dns)
        allowed = {"metadata": {"labels": {ALLOWED_LABEL: ALLOWED_VALUE}}}
        apps.patch_namespaced_deployment(dns, "kube-system", allowed)
        injected = inject(tmp_path, planned("dns_away", deployment=dns))
        left = apps.read_namespaced_deployment(dns, "kube-system").spec.replicas
        undone = undo_pending(tmp_path, by="test")
        is_back = wait_until(
            lambda: ready() == 2, timeout_s=30
        )  # a deployment counts its pods a little later
    finally:
        apps.delete_namespaced_deployment(dns, "kube-system")

    assert "no pod of it is left" in injected["verified"]
    assert left == 0
    assert [each.is_restored for each in undone] == [True]
    assert "2 ready" in undone[0].did
    assert is_back


def test_a_fault_that_did_not_take_hold_is_pending_until_it_is_undone(
    service: Service, aim: Aim, tmp_path: Path
) -> None:
    captured = planned("pods_partition", label_selector=SELECTOR, port=PORT)

    with pytest.raises(TargetError, match=r"did not take hold.*still answer"):
        inject(tmp_path, captured)
    made = policies(service)
    undone = undo_pending(tmp_path, by="test")

    assert len(made) == 1
    assert [each.is_restored for each in undone] == [True]
    assert (policies(service), labelled(service)) == ([], [])


@pytest.mark.usefixtures("no_dead_man_left")
def test_a_partition_whose_controller_is_killed_with_its_disk_is_undone_by_the_dead_man(
    service: Service, tmp_path: Path, hosts: Hosts, record_property: Callable[[str, object], None]
) -> None:
    path = write_day(tmp_path, "pods-partition", service, lambda document: watch_over(document, service))

    with enforcing(service, hosts) as cut:
        kill_in_the_middle(path, lambda: bool(cut))
        killed_at, hit, was_cut = time.monotonic(), labelled(service), len(cut)
        assert hit, "the day has put it back before it was killed, or the dead-man already has"
        is_undone = wait_until(lambda: not cut, timeout_s=60)
        record_property("undone_after_s", round(time.monotonic() - killed_at, 1))
        still_hit, left = labelled(service), policies(service)
    service.core.delete_namespaced_pod(hit[0], service.namespace)

    assert (len(hit), was_cut) == (1, 1)
    assert is_undone
    assert still_hit == []
    assert len(left) == 1  # about nobody: the dead-man has no right to delete
    assert wait_until(lambda: not policies(service), timeout_s=60)  # it goes with the pod that it was about

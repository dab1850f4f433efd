"""Whole game days on the real cluster, under traffic through the Service: healed, and without healing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import client

from probes.child import wait_until
from probes.json_types import JsonObject
from reports.table import read_series
from tests.cluster.kube_days import (
    CONTROLLERS,
    DEPLOYMENT,
    Service,
    decided_day,
    has_its_times,
    kill_in_the_middle,
    lent_node,
    lost_day,
    once,
    outcome_of,
    overproof,
    run_day,
    serve,
    take_back,
    told,
    watch_over,
    without_controllers,
    write_day,
)
from tests.cluster.plan import CONTROL_PLANE
from tests.cluster.running import Hosts
from tests.cluster.workload import diagnosis, evictions_refused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture
def service(api: client.ApiClient, namespace: str) -> Service:
    return serve(api, namespace, loads_for_s=4)  # as a model does; else too little traffic meets the gap


@pytest.fixture
def node(service: Service) -> Iterator[str]:
    """A node that carries a replica, and that game days may hit."""
    name = lent_node(service)
    yield name
    take_back(service, name)


def draining(document: JsonObject, node: str) -> None:
    """Name the node."""
    document["method"][0]["provider"]["arguments"]["node"] = node


def soon(document: JsonObject) -> None:
    """Expect it to be back within seconds, so that what does not come is known soon."""
    document["method"][1]["provider"]["arguments"]["within_s"] = 12
    document["extensions"][0]["recovery_s"] = 10


def test_a_killed_pod_is_replaced_and_the_day_passes_with_its_times(service: Service, tmp_path: Path) -> None:
    before = service.ready()

    status, run = decided_day(write_day(tmp_path, "pod-kill", service))

    (redundancy,) = [f for f in run.findings if f.rule == "redundancy"]
    assert status == 0, told(run)
    assert has_its_times(run)
    assert "all pods ready again after" in redundancy.observed
    service.await_ready()
    assert before.keys() - service.ready().keys()
    assert {row["ready"] for row in read_series(run, "kube")} >= {2, 3}
    assert "cluster.locked" in [event.kind for event in run.events]
    assert client.CoordinationV1Api(service.api).list_namespaced_lease(service.namespace).items == []


def test_without_the_controllers_a_killed_pod_fails_the_day_and_stays_to_be_undone(
    service: Service, tmp_path: Path, hosts: Hosts
) -> None:
    path = write_day(tmp_path, "pod-kill", service, soon)
    with without_controllers(hosts):
        status, run = run_day(path)
        left = overproof("gameday", "doctor", "--out", path.parent / "runs")
    service.await_ready()
    undone = overproof("gameday", "undo", "--out", path.parent / "runs")

    (redundancy,) = [f for f in run.findings if f.rule == "redundancy"]
    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail"
    assert "2 of 3 ready" in redundancy.observed
    assert (left.returncode, undone.returncode) == (1, 0), left.stdout + undone.stdout


def test_a_drain_waits_for_the_disruption_budget_and_gives_the_node_back(
    service: Service, node: str, tmp_path: Path
) -> None:
    path = write_day(tmp_path, "node-drain", service, lambda document: draining(document, node))

    status, run = lost_day(service, node, path, beside=lambda: budget_that_gives_way(service, left=2))

    (fault,) = [f for f in run.findings if f.rule == "fault"]
    assert status == 0, told(run)
    assert has_its_times(run)
    assert "a disruption budget said no first" in fault.observed
    assert node not in service.ready().values()
    assert not service.core.read_node(node).spec.unschedulable


@contextmanager
def budget_that_gives_way(service: Service, *, left: int) -> Iterator[None]:
    """Have a disruption budget over the service say no, and as soon as it has said so, let pods go."""
    budgets, space = client.PolicyV1Api(service.api), service.namespace
    spec = {"minAvailable": 3, "selector": {"matchLabels": {"app": DEPLOYMENT}}}
    budgets.create_namespaced_pod_disruption_budget(space, {"metadata": {"name": "all"}, "spec": spec})
    before = evictions_refused(service.api)

    def let_go() -> None:
        budgets.patch_namespaced_pod_disruption_budget("all", space, {"spec": {"minAvailable": left}})

    try:
        with once(lambda: evictions_refused(service.api) > before, let_go, interval_s=1):
            yield
    finally:
        budgets.delete_namespaced_pod_disruption_budget("all", space)


def test_without_the_controllers_a_drain_fails_the_day_and_the_node_is_given_back(
    service: Service, node: str, tmp_path: Path, hosts: Hosts
) -> None:
    def hopeless(document: JsonObject) -> None:
        draining(document, node)
        soon(document)

    path = write_day(tmp_path, "node-drain", service, hopeless)
    with without_controllers(hosts):
        status, run = run_day(path)
    service.await_ready()

    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail", told(run)
    assert outcome_of(run, "undo") == "pass", told(run)
    assert not service.core.read_node(node).spec.unschedulable


def test_a_bad_roll_out_takes_nothing_away_and_the_former_version_comes_back(
    service: Service, tmp_path: Path
) -> None:
    apps = client.AppsV1Api(service.api)
    former = apps.read_namespaced_deployment(DEPLOYMENT, service.namespace).spec.template.spec.containers
    before = service.containers()

    status, run = decided_day(write_day(tmp_path, "deployment-bad-rollout", service))

    now = apps.read_namespaced_deployment(DEPLOYMENT, service.namespace).spec.template.spec.containers
    assert status == 0, told(run)
    assert has_its_times(run)
    assert [each.image for each in now] == [each.image for each in former]
    as_before = wait_until(lambda: service.containers() == before, timeout_s=30)  # the bad pod has to go
    assert as_before, diagnosis(service.api, service.namespace)()


def test_without_the_controllers_a_bad_roll_out_fails_the_day_though_the_former_version_is_wanted_again(
    service: Service, tmp_path: Path, hosts: Hosts
) -> None:
    def hopeless(document: JsonObject) -> None:
        document["steady-state-hypothesis"]["probes"][0]["provider"]["arguments"]["within_s"] = 12
        document["extensions"][0]["recovery_s"] = 10

    in_place = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    client.AppsV1Api(service.api).patch_namespaced_deployment(
        DEPLOYMENT, service.namespace, {"spec": {"strategy": in_place}}
    )
    path = write_day(tmp_path, "deployment-bad-rollout", service, hopeless)

    with deserted(service, hosts):
        status, run = run_day(path)
    service.await_ready()

    assert status == 1, told(run)
    assert outcome_of(run, "redundancy") == "fail", told(run)
    assert outcome_of(run, "undo") == "pass", told(run)


@contextmanager
def deserted(service: Service, hosts: Hosts) -> Iterator[None]:
    """Stop the controllers as soon as a pod of the service waits for an image that it cannot have."""

    def stop() -> None:
        hosts.stop_service(CONTROL_PLANE, CONTROLLERS)

    try:
        with once(lambda: waits_for_image(service), stop, interval_s=0.5):
            yield
    finally:
        hosts.start_service(CONTROL_PLANE, CONTROLLERS)


def waits_for_image(service: Service) -> bool:
    pods = service.core.list_namespaced_pod(service.namespace).items
    states = [each.state.waiting for pod in pods for each in pod.status.container_statuses or ()]
    return any(waiting is not None and "Image" in str(waiting.reason) for waiting in states)


def test_a_deployment_is_scaled_down_and_back(service: Service, tmp_path: Path) -> None:
    status, run = decided_day(write_day(tmp_path, "deployment-scale", service))

    assert status == 0, told(run)
    service.await_ready()


def test_a_plan_that_was_confirmed_is_refused_once_the_pod_is_another(
    service: Service, tmp_path: Path
) -> None:
    path = write_day(tmp_path, "pod-kill", service)
    out = ("--out", tmp_path / "runs")
    shown = overproof("gameday", "plan", path, *out)
    digest = shown.stdout.split()[-1]
    for pod in service.containers():
        service.core.delete_namespaced_pod(pod, service.namespace)
    service.await_ready()
    before = service.containers()

    done = overproof("gameday", "run", path, *out, "--plan", digest)

    assert shown.returncode == 0, shown.stderr
    assert f"namespace {service.namespace} allowed" in shown.stdout
    assert done.returncode == 2, done.stderr
    assert "is not what would be done now" in done.stderr
    assert service.containers() == before


@pytest.mark.usefixtures("no_dead_man_left")
def test_a_drain_whose_controller_is_killed_with_its_disk_is_undone_by_the_dead_man(
    service: Service, node: str, tmp_path: Path
) -> None:
    selector = {"matchLabels": {"app": DEPLOYMENT}}
    budget = {"metadata": {"name": "endpoint"}, "spec": {"minAvailable": 3, "selector": selector}}
    client.PolicyV1Api(service.api).create_namespaced_pod_disruption_budget(service.namespace, budget)

    def watched(document: JsonObject) -> None:
        draining(document, node)
        watch_over(document, service)

    path = write_day(tmp_path, "node-drain", service, watched)
    kill_in_the_middle(path, lambda: is_cordoned(service, node))
    was_cordoned = is_cordoned(service, node)

    assert was_cordoned
    assert wait_until(lambda: not is_cordoned(service, node), timeout_s=60)


def is_cordoned(service: Service, node: str) -> bool:
    return bool(service.core.read_node(node).spec.unschedulable)

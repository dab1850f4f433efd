"""Our Jobs inside the real cluster, with the shipped rights: a verdict, an exit code, a record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from probes.child import wait_until
from probes.kubernetes_api import connect_api
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.cluster.kube_accounts import grant
from tests.cluster.kube_days import Service, outcome_of, serve, told, write_day
from tests.cluster.kube_inside import MANIFESTS, at_home, config_map, exit_code_of, shipped
from tests.cluster.plan import KUBECONFIG_VARIABLE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

SPACE, NAME = "overproof", "overproof-day"
NAMESPACED = {"Pod", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
# Those of the service make their own namespace, in which a dry run can make nothing.
SHIPPED = [path for path in sorted(MANIFESTS.rglob("*.yaml")) if path.parent.name != "service"]
EXIT_CODES = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}


@pytest.fixture
def service(api: client.ApiClient, namespace: str) -> Service:
    return serve(api, namespace, loads_for_s=4)


@pytest.fixture(autouse=True)
def rights(api: client.ApiClient) -> Iterator[None]:
    """The shipped rights; no Job of a test is there for the next."""
    grant("0-namespace", "observe", "pod-faults")
    yield
    clear(api)


def clear(api: client.ApiClient) -> None:
    """Remove the Job of the day, with its pod."""
    batch, one = client.BatchV1Api(api), {"field_selector": f"metadata.name={NAME}"}
    batch.delete_collection_namespaced_job(SPACE, propagation_policy="Foreground", **one)
    assert wait_until(lambda: not batch.list_namespaced_job(SPACE, **one).items, timeout_s=60)


def bind(api: client.ApiClient, namespace: str, role: str) -> None:
    """Grant one of our roles in a namespace, as its owner does."""
    who = {"kind": "ServiceAccount", "name": "overproof", "namespace": SPACE}
    roles = {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": role}, "roleRef": roles, "subjects": [who]}
    client.RbacAuthorizationV1Api(api).create_namespaced_role_binding(namespace, binding)


def run_inside(api: client.ApiClient, service: Service, folder: Path) -> tuple[int, Run | None]:
    """Run the day that kills a pod as the shipped Job; return exit code and record, None: it has none."""
    day = write_day(folder, "pod-kill", service)
    document = yaml.safe_load(day.read_text())
    (extension,) = document["extensions"]
    workload = Path(extension["workload"])
    extension["workload"] = workload.name
    extension["target"]["kubernetes"] = {"namespaces": [service.namespace]}
    (folder / "day.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    config_map(service.core, SPACE, NAME, [folder / "day.yaml", workload])
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    job = shipped("run/day", "Job")
    job["spec"]["template"]["spec"] = at_home(job["spec"]["template"]["spec"], runs=runs)
    clear(api)
    client.BatchV1Api(api).create_namespaced_job(SPACE, job)
    code = exit_code_of(api, SPACE, NAME, timeout_s=180)
    recorded = sorted(each for each in runs.glob("*-gameday-*") if not each.is_symlink())
    return code, load_run(recorded[-1]) if recorded else None


def decided_inside(api: client.ApiClient, service: Service, folder: Path) -> tuple[int, Run]:
    """Run it, again where only our own load client fell behind; a FAIL is never asked twice."""
    for number in range(3):
        each = folder / str(number)
        each.mkdir()
        code, run = run_inside(api, service, each)
        assert run is not None
        assert code == EXIT_CODES[run.outcome], told(run)
        if run.outcome is not Outcome.INCONCLUSIVE or outcome_of(run, "client") == "pass":
            break
        service.await_ready()
    return code, run


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_manifest_is_taken_by_a_strict_api_server(api: client.ApiClient, path: Path) -> None:
    grant("0-namespace", "burnin/rights")
    asked = connect_api(os.environ[KUBECONFIG_VARIABLE])
    for row in yaml.safe_load_all(path.read_text()):
        group, space = row["apiVersion"], row["metadata"].get("namespace")
        base = "/api/v1" if group == "v1" else f"/apis/{group}"
        spaces = f"/namespaces/{space or 'default'}" if space or row["kind"] in NAMESPACED else ""
        row["metadata"]["name"] += "-tried"  # also where it is there already

        query = {"dryRun": "All", "fieldValidation": "Strict"}
        made = asked.ask("POST", f"{base}{spaces}/{row['kind'].lower()}s", query=query, body=row)

        assert made["kind"] == row["kind"]


def test_a_day_from_inside_kills_a_pod_and_its_verdict_is_the_exit_code_of_the_job(
    api: client.ApiClient, service: Service, tmp_path: Path
) -> None:
    bind(api, service.namespace, "overproof-pod-faults")
    before = service.ready()

    code, run = decided_inside(api, service, tmp_path)

    (armed, *_) = (run.path / "undo.ndjson").read_text().splitlines()
    identity = json.loads(armed)["captured"]["identity"]
    assert code == 0, told(run)
    service.await_ready()
    assert len(set(before) - set(service.ready())) >= 1
    assert identity["uid"] == service.core.read_namespace("kube-system").metadata.uid
    assert identity["context"] == "in cluster"


def test_without_its_binding_a_day_from_inside_touches_nothing_and_exits_as_wrongly_set_up(
    api: client.ApiClient, service: Service, tmp_path: Path
) -> None:
    before = service.containers()

    code, run = run_inside(api, service, tmp_path)

    assert code == 2
    assert run is not None
    assert run.events_of("fault.armed") == []
    assert service.containers() == before

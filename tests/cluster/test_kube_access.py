"""A cluster that cannot be reached, or does not let us: one clear line, and nothing touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from probes.child import wait_until
from probes.json_types import JsonObject
from tests.cluster.kube_days import Service, overproof, serve, write_day
from tests.cluster.plan import KUBECONFIG_VARIABLE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def service(api: client.ApiClient, shared_namespace: str) -> Service:
    return serve(api, shared_namespace, replicas=1)


def kubeconfig(folder: Path, *, token: str = "", server: str = "") -> str:
    """Write a kubeconfig like that of the tests, with another token or server."""
    document = yaml.safe_load(Path(os.environ[KUBECONFIG_VARIABLE]).read_text())
    if token:
        document["users"][0]["user"] = {"token": token}
    if server:
        document["clusters"][0]["cluster"]["server"] = server
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return str(path)


def refused(folder: Path, service: Service, **cluster: str) -> tuple[int, str]:
    """Run the day on a cluster that is stated otherwise; return exit code and what was said."""

    def change(document: JsonObject) -> None:
        document["extensions"][0]["target"]["kubernetes"] |= cluster

    path = write_day(folder, "pod-kill", service, change)
    before = service.containers()
    done = overproof("gameday", "run", path, "--out", folder / "runs")
    assert service.containers() == before
    said = [line for line in done.stderr.splitlines() if line.startswith("overproof:")]
    assert len(said) == 1, done.stderr
    return done.returncode, said[0]


def test_a_context_that_is_not_there(service: Service, tmp_path: Path) -> None:
    status, said = refused(tmp_path, service, context="production")

    assert status == 2
    assert "context 'production'" in said


def test_a_token_that_is_not_known_any_more(service: Service, tmp_path: Path) -> None:
    status, said = refused(tmp_path, service, kubeconfig=kubeconfig(tmp_path, token="expired"))

    assert status == 3
    assert "has expired, or is not of this cluster" in said


def test_a_server_that_does_not_answer(service: Service, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, server="https://127.0.0.1:1")

    status, said = refused(tmp_path, service, kubeconfig=path)

    assert status == 3
    assert "no answer to GET" in said


def test_a_verb_that_is_not_granted(service: Service, tmp_path: Path) -> None:
    rights, space = client.RbacAuthorizationV1Api(service.api), service.namespace
    look = {"apiGroups": ["", "apps"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
    who = {"kind": "ServiceAccount", "name": "observer", "namespace": space}
    service.core.create_namespaced_service_account(space, {"metadata": {"name": "observer"}})
    rights.create_cluster_role({"metadata": {"name": space}, "rules": [look]})
    role = {"kind": "ClusterRole", "name": space, "apiGroup": "rbac.authorization.k8s.io"}
    rights.create_cluster_role_binding({"metadata": {"name": space}, "roleRef": role, "subjects": [who]})
    try:
        request = {"spec": {"audiences": [], "expirationSeconds": 600}}
        token = service.core.create_namespaced_service_account_token("observer", space, request).status.token
        assert wait_until(lambda: bool(token), timeout_s=5)
        status, said = refused(tmp_path, service, kubeconfig=kubeconfig(tmp_path, token=token))
    finally:
        rights.delete_cluster_role_binding(space)
        rights.delete_cluster_role(space)

    assert status == 2
    assert f"may delete pods in {space}: RBAC of the cluster does not let us" in said

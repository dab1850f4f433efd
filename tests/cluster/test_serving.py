"""A service on three nodes of the real cluster, asked from outside and from pods."""

from __future__ import annotations

import pytest
from kubernetes import client
from kubernetes.stream import stream

from probes.child import wait_until
from tests.cluster.workload import PORT, deploy, diagnosis, ready_pods, replica_that_answers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def test_a_service_answers_across_nodes_from_outside_and_from_a_pod(
    api: client.ApiClient, namespace: str
) -> None:
    url = deploy(api, namespace, replicas=3)
    tell = diagnosis(api, namespace)
    assert wait_until(lambda: len(ready_pods(api, namespace)) == 3, timeout_s=60), tell()
    pods = ready_pods(api, namespace)

    assert wait_until(lambda: asked(url) == set(pods), timeout_s=30), asked(url)
    from_pods: dict[str, str] = {}

    def are_answered() -> bool:
        from_pods.update({pod: _ask_from(api, namespace, pod, url) for pod in pods})
        return set(from_pods.values()) == {"[200, 200, 200, 200]"}

    assert len(set(pods.values())) == 3
    assert wait_until(are_answered, timeout_s=30), from_pods


def asked(url: str) -> set[str | None]:
    """Return who answers 40 requests; None is among them when one is not answered."""
    return {replica_that_answers(url) for _ in range(40)}


def _ask_from(api: client.ApiClient, namespace: str, pod: str, url: str) -> str:
    """Ask the service from inside a pod, and each pod at its own address; return what they answered."""
    pods = client.CoreV1Api(api).list_namespaced_pod(namespace).items
    urls = [url, *(f"http://{each.status.pod_ip}:{PORT}" for each in pods)]
    lines = f"import urllib.request as r; print([r.urlopen(u + '/health', timeout=3).status for u in {urls}])"
    session = stream(
        client.CoreV1Api(api).connect_get_namespaced_pod_exec,
        pod,
        namespace,
        command=["python3.11", "-c", lines],
        stderr=True,
        stdout=True,
        stdin=False,
        tty=False,
        _preload_content=False,
    )
    try:
        session.run_forever(timeout=20)
        return str(session.read_all()).strip()
    finally:
        session.sock.shutdown()
        session.sock.close()

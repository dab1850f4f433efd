"""The simulated endpoint on a cluster: a Deployment, one replica a node where it can be, and its Service."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable

from kubernetes import client

from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.readiness import is_ready

PORT = 8000
_LABELS = {"app": "endpoint"}


def deploy(api: client.ApiClient, namespace: str, *, replicas: int, loads_for_s: int = 0) -> str:
    """Create it and return the address of its Service; each replica takes so long until it is ready."""
    client.AppsV1Api(api).create_namespaced_deployment(namespace, _deployment(replicas, loads_for_s))
    ports = [{"port": PORT, "targetPort": PORT}]
    service = {"metadata": {"name": "endpoint"}, "spec": {"selector": _LABELS, "ports": ports}}
    made = client.CoreV1Api(api).create_namespaced_service(namespace, service)
    return f"http://{made.spec.cluster_ip}:{PORT}"


def _deployment(replicas: int, loads_for_s: int) -> dict[str, object]:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _LABELS},
    }
    template = {
        "metadata": {"labels": _LABELS},
        "spec": {
            "containers": [_container(loads_for_s)],
            "topologySpreadConstraints": [spread],
            "terminationGracePeriodSeconds": 2,
            "dnsPolicy": "Default",
        },
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": _LABELS}, "template": template}
    return {"metadata": {"name": "endpoint"}, "spec": spec}


def _container(loads_for_s: int) -> dict[str, object]:
    name = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    serve = ["-m", "loadtests.endpoint", "--host", "0.0.0.0", "--port", str(PORT), "--name", "$(POD)"]
    return {
        "name": "endpoint",
        "image": ENDPOINT_IMAGE,
        "imagePullPolicy": "Never",
        "args": serve,
        "env": [name],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": PORT},
            "periodSeconds": 1,
            "initialDelaySeconds": loads_for_s,
        },
    }


def ready_pods(api: client.ApiClient, namespace: str) -> dict[str, str]:
    """Return the node of each pod that is ready and not about to go."""
    rows = _staying(api, namespace)
    return {pod.metadata.name: pod.spec.node_name for pod in rows if is_ready(pod.status.conditions)}


def containers(api: client.ApiClient, namespace: str) -> dict[str, list[str]]:
    """Return the containers of each pod that is not about to go, ready or not."""
    rows = _staying(api, namespace)
    return {pod.metadata.name: [c.container_id for c in pod.status.container_statuses or ()] for pod in rows}


def _staying(api: client.ApiClient, namespace: str) -> list[client.V1Pod]:
    pods = client.CoreV1Api(api).list_namespaced_pod(namespace).items
    return [pod for pod in pods if pod.metadata.deletion_timestamp is None]


def evictions_refused(api: client.ApiClient) -> float:
    """Return how many evictions this API server has refused so far, since a disruption budget said no."""
    answer = api.call_api("GET", f"{api.configuration.host}/metrics")
    refused = (
        line for line in answer.read().decode().splitlines() if line.startswith("apiserver_request_total{")
    )
    ours = [line for line in refused if 'subresource="eviction"' in line and 'code="429"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in ours)


def is_node_ready(api: client.ApiClient, name: str) -> bool:
    """Say whether a node is ready."""
    return is_ready(client.CoreV1Api(api).read_node(name).status.conditions)


def is_node_well(api: client.ApiClient, name: str) -> bool:
    """Say whether a node is ready, and the platform keeps pods away from it no more."""
    node = client.CoreV1Api(api).read_node(name)
    taints = [each.key for each in node.spec.taints or () if each.key.startswith("node.kubernetes.io/")]
    return is_ready(node.status.conditions) and not taints


def replica_that_answers(url: str, *, timeout_s: float = 2) -> str | None:
    """Ask for a completion and return who sent it; None where nobody did in time."""
    body = {"model": "simulated", "messages": [{"role": "user", "content": "?"}], "max_tokens": 2}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return str(reply.headers["x-replica"])
    except (OSError, urllib.error.URLError):
        return None


def diagnosis(api: client.ApiClient, namespace: str) -> Callable[[], str]:
    """Return what says, when asked, how the pods are and what happened to them."""

    def tell() -> str:
        core = client.CoreV1Api(api)
        pods = [f"{p.metadata.name} {p.status.phase}" for p in core.list_namespaced_pod(namespace).items]
        events = [f"{e.reason}: {e.message}" for e in core.list_namespaced_event(namespace).items]
        return "\n".join([*pods, *events[-20:]])

    return tell

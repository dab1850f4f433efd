"""The metrics API of a cluster, as metrics-server gives it: processor time of pods, by their kubelets.

A stand-in for metrics-server alone, which is a program of its own release and ten minutes to build: the
counters, the API's aggregation and the autoscaler that asks are the real ones.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from probes.json_types import JsonObject
from tests.cluster.plan import Plan

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
EVERY_S = 3.0
_LINE = re.compile(
    r'^container_cpu_usage_seconds_total{container="(?P<container>[^"]+)",'
    r'namespace="(?P<namespace>[^"]+)",pod="(?P<pod>[^"]+)"} (?P<seconds>\S+) (?P<t_ms>\d+)$',
    re.MULTILINE,
)


@dataclass(slots=True)
class Usage:
    """What is known of one container: its counter at the last two moments at which it was read anew."""

    points: list[tuple[int, float]] = field(default_factory=list)  # milliseconds, seconds of processor

    def take(self, t_ms: int, seconds: float) -> None:
        """Add a reading, unless it is the one that is known."""
        if not self.points or t_ms > self.points[-1][0]:
            self.points = [*self.points[-1:], (t_ms, seconds)]

    @property
    def cores(self) -> float | None:
        """Its mean use between the two; None: there are not two yet."""
        if len(self.points) < 2:
            return None
        (t0, s0), (t1, s1) = self.points
        return (s1 - s0) / ((t1 - t0) / 1000)


class PodMetrics:
    """Reads every kubelet's counters now and then."""

    def __init__(self, api: client.ApiClient, nodes: list[str]) -> None:
        self._core = client.CoreV1Api(api)
        self._nodes = nodes
        self._known: dict[tuple[str, str, str], Usage] = {}
        self.leaving = threading.Event()

    def follow(self) -> None:
        """Read until told to leave; a node that does not answer is asked again."""
        while not self.leaving.wait(EVERY_S):
            for node in self._nodes:
                with contextlib.suppress(client.ApiException, OSError):
                    page = self._core.connect_get_node_proxy_with_path(node, "metrics/resource")
                    self.read(page)

    def read(self, page: str) -> None:
        """Take what a kubelet's page says."""
        for found in _LINE.finditer(page):
            key = (found["namespace"], found["pod"], found["container"])
            self._known.setdefault(key, Usage()).take(int(found["t_ms"]), float(found["seconds"]))

    def rows(self, namespace: str, selector: str) -> list[JsonObject]:
        """Return the use of each pod that matches, as the API shows it."""
        pods = self._core.list_namespaced_pod(namespace, label_selector=selector).items
        rows = []
        for pod in pods:
            name = pod.metadata.name
            mine = {
                key[2]: usage for key, usage in tuple(self._known.items()) if key[:2] == (namespace, name)
            }
            if mine and all(usage.cores is not None for usage in mine.values()):
                rows.append(_row(namespace, name, pod.metadata.labels, mine))
        return rows


def _row(namespace: str, name: str, labels: JsonObject, mine: dict[str, Usage]) -> JsonObject:
    (t0, _), (t1, _) = next(iter(mine.values())).points
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t1 / 1000))
    containers = [
        {"name": key, "usage": {"cpu": f"{round((usage.cores or 0) * 1e9)}n", "memory": "0"}}
        for key, usage in mine.items()
    ]
    meta = {"name": name, "namespace": namespace, "labels": labels, "creationTimestamp": stamp}
    window = {"timestamp": stamp, "window": f"{(t1 - t0) / 1000:.3f}s", "containers": containers}
    return {"metadata": meta} | window


def _answer(metrics: PodMetrics, target: str) -> JsonObject | None:
    parts = urlsplit(target)
    words = parts.path.strip("/").split("/")
    if words == ["apis", GROUP, VERSION]:
        resource = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics"}
        listed = [resource | {"verbs": ["get", "list"]}]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"} | {
            "resources": listed
        }
    if len(words) == 6 and words[3] == "namespaces" and words[5] == "pods":
        selector = parse_qs(parts.query).get("labelSelector", [""])[0]
        kind = {"kind": "PodMetricsList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
        return kind | {"items": metrics.rows(words[4], selector)}
    return None


@contextlib.contextmanager
def serving_pod_metrics(api: client.ApiClient, plan: Plan) -> Iterator[PodMetrics]:
    """Serve the metrics API on this machine, and have the cluster ask it, until the end."""
    metrics = PodMetrics(api, [node.name for node in plan.nodes])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = _answer(metrics, self.path)
            body = json.dumps(document or {"kind": "Status", "apiVersion": "v1", "code": 404}).encode()
            self.send_response(404 if document is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((plan.machine_address, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pki = plan.folder / "pki"
    context.load_cert_chain(_pair(pki, "crt"), _pair(pki, "key"))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threads = [threading.Thread(target=each, daemon=True) for each in (server.serve_forever, metrics.follow)]
    for thread in threads:
        thread.start()
    try:
        _register(api, plan.machine_address, server.server_address[1])
        yield metrics
    finally:
        _unregister(api)
        metrics.leaving.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join(timeout=20)


def _pair(pki: Path, ending: str) -> Path:
    return pki / f"front-proxy.{ending}"  # any that there is: the cluster is told not to look at it


def _register(api: client.ApiClient, address: str, port: int) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_service(
        "kube-system",
        {"metadata": {"name": "pod-metrics"}, "spec": {"ports": [{"name": "https", "port": 443}]}},
    )
    ends = {
        "metadata": {"name": "pod-metrics-1", "labels": {"kubernetes.io/service-name": "pod-metrics"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }
    client.DiscoveryV1Api(api).create_namespaced_endpoint_slice("kube-system", ends)
    spec = {
        "service": {"name": "pod-metrics", "namespace": "kube-system", "port": 443},
        "group": GROUP,
        "version": VERSION,
        "insecureSkipTLSVerify": True,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    row = {"metadata": {"name": f"{VERSION}.{GROUP}"}, "spec": spec}
    client.ApiregistrationV1Api(api).create_api_service(row)


def _unregister(api: client.ApiClient) -> None:
    client.ApiregistrationV1Api(api).delete_api_service(f"{VERSION}.{GROUP}")
    client.DiscoveryV1Api(api).delete_namespaced_endpoint_slice("pod-metrics-1", "kube-system")
    client.CoreV1Api(api).delete_namespaced_service("pod-metrics", "kube-system")

"""Whatever an action on a cluster breaks, the lock of its namespaces is looked at right before."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from experiments.faults.fault import FaultRefused
from experiments.kube import actions, network_actions, node_actions
from experiments.kube.cluster import Cluster
from experiments.kube.lock import LOCK_S, lock_path

SPACE = "inference"
THEIRS = "20261121T000000Z-gameday-0002 on other-machine, process 7"


class _Api(BaseHTTPRequestHandler):
    """Knows the lock of one namespace, which another game day has, and nothing else."""

    def do_GET(self) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": THEIRS,
            "leaseDurationSeconds": LOCK_S,
            "acquireTime": now,
            "renewTime": now,
        }
        lease = {"metadata": {"name": "overproof-gameday", "uid": "u", "resourceVersion": "1"}, "spec": spec}
        is_known = self.path == lock_path(SPACE)
        body = json.dumps(lease if is_known else {"kind": "Status"}).encode()
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig | {"apiVersion": "v1", "kind": "Config", "current-context": "x"}))
    yield Cluster(namespaces=(SPACE,), kubeconfig=str(path))
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("module", "fault"),
    [(actions, "pod.kill"), (node_actions, "node.network-cut"), (network_actions, "pods.partition")],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_a_namespace_that_another_game_day_has_come_to_is_left_alone(
    module: object, fault: str, cluster: Cluster
) -> None:
    captured = {"cluster": cluster.to_json(), "run": "20261121T000000Z-gameday-0001"}

    with pytest.raises(
        FaultRefused, match=rf"namespace {SPACE}: game day {THEIRS} has it .* nothing is injected"
    ):
        module.inject(fault, captured)  # type: ignore[attr-defined]

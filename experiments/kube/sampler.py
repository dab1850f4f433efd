"""Watches workloads and nodes of a cluster while a game day runs: a row each at every change and each second.

By watches, so that a game day costs the API a handful of calls a minute; no row is written while the API does
not answer, so that silence is never taken for health.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from experiments.kube.client import ApiRefused, KubeClient, connect
from experiments.kube.cluster import Cluster
from experiments.kube.observed import node_trouble
from experiments.kube.pod_view import PodView
from experiments.kube.pods import condition_of
from experiments.kube.samples import KUBE_SERIES, NODE, workload_subject
from experiments.kube.workloads import count, find_workloads
from probes.errors import RecordError, TargetError
from probes.json_types import JsonObject
from reports.record import RunWriter

EVERY_S = 1.0
FRESH_NS = 8_000_000_000  # a watch ends in good order every 5 s; beyond this nobody has told us anything
_TURN_S = 5.0


class KubeSampler:
    """Samples in threads of its own, from ``start`` to ``stop``."""

    def __init__(
        self, client: KubeClient, workloads: Sequence[JsonObject], nodes: Sequence[str], writer: RunWriter
    ) -> None:
        self._workloads, self._nodes, self._writer = workloads, nodes, writer
        self._view = PodView(client, sorted({str(row["namespace"]) for row in workloads}))
        self._client = client
        self._known_nodes: dict[str, JsonObject] = {}
        self._nodes_seen_ns = 0
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._last_ns = 0
        self.error: RecordError | None = None  # what ended the sampling, for the main thread to raise
        watches = (
            [threading.Thread(target=self._watch_pods, daemon=True, name="kube-pods")] if workloads else []
        )
        watches += (
            [threading.Thread(target=self._watch_nodes, daemon=True, name="kube-nodes")] if nodes else []
        )
        self._threads = [*watches, threading.Thread(target=self._tick, daemon=True, name="kube-sampler")]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; a watch that is open ends within seconds, and writes nothing more."""
        self._leaving.set()
        self._threads[-1].join(timeout=10)

    def _tick(self) -> None:
        while not self._leaving.wait(EVERY_S):
            self._write()

    def _watch_pods(self) -> None:
        while not self._leaving.is_set():
            try:
                self._view.follow(self._changed, within_s=60.0)
            except TargetError as error:
                self._silent(error)

    def _watch_nodes(self) -> None:
        while not self._leaving.is_set():
            try:
                rows, version = self._client.listed_at("/api/v1/nodes")
                self._known_nodes = {str(row["metadata"]["name"]): row for row in rows}
                self._nodes_seen_ns = time.time_ns()
                self._follow_nodes(version)
            except TargetError as error:
                self._silent(error)

    def _follow_nodes(self, version: str) -> None:
        try:
            while not self._leaving.is_set():
                for change in self._client.watch("/api/v1/nodes", version, within_s=_TURN_S):
                    version = str(change["object"]["metadata"]["resourceVersion"])
                    if change["type"] in ("ADDED", "MODIFIED"):
                        self._known_nodes[str(change["object"]["metadata"]["name"])] = change["object"]
                        self._nodes_seen_ns = time.time_ns()
                        self._write()
                    elif change["type"] == "DELETED":
                        self._known_nodes.pop(str(change["object"]["metadata"]["name"]), None)
                        self._nodes_seen_ns = time.time_ns()
                        self._write()
                self._nodes_seen_ns = time.time_ns()
        except ApiRefused as error:
            if error.status != 410:  # the version is too old: listed anew
                raise

    def _silent(self, error: TargetError) -> None:
        if not self._leaving.is_set():
            self._writer.event("controller", "cluster.silent", reason=str(error))
        self._leaving.wait(EVERY_S)

    def _changed(self) -> bool:
        self._write()
        return self._leaving.is_set()

    def _write(self) -> None:
        """Write one row for each, all of one moment, unless what is known is stale."""
        with self._lock:
            t_ns = max(time.time_ns(), self._last_ns + 1)
            ages = [t_ns - self._view.seen_ns] if self._workloads else []
            ages += [t_ns - self._nodes_seen_ns] if self._nodes else []
            if self._leaving.is_set() or self.error is not None or max(ages, default=0) > FRESH_NS:
                return
            self._last_ns = t_ns
            try:
                for row in self._rows():
                    self._writer.sample(
                        KUBE_SERIES, {"t_ns": t_ns, "seen_ns": t_ns - max(ages, default=0)} | row
                    )
            except RecordError as error:
                self.error = error

    def _rows(self) -> list[JsonObject]:
        pods, rows = self._view.pods, []
        for workload in self._workloads:
            seen = count(workload, pods)
            is_serving = bool(seen["ready"] >= seen["wanted"] and not seen["waits_for"])
            rows.append(
                {"subject": workload_subject(workload), "is_serving": is_serving}
                | {"ready": seen["ready"], "wanted": seen["wanted"]}
                | {"waits_for": seen["waits_for"], "uids": " ".join(seen["uids"])}
                | {"containers": " ".join(seen["containers"])}
                | {"made": " ".join(seen["made"]), "started": " ".join(seen["started"])}
            )
        for name in self._nodes:
            node = self._known_nodes.get(name)
            is_ready = node is not None and condition_of(node, "Ready").get("status") == "True"
            trouble = "" if node is None else node_trouble(node)
            rows.append(
                {"subject": f"{NODE}{name}", "ready": int(is_ready), "wanted": 1}
                | {"is_serving": is_ready and not trouble}
                | {"waits_for": trouble if is_ready else "", "uids": ""}
                | {"containers": ""}
                | {"made": "", "started": ""}
            )
        return rows


def workloads_under(cluster: Cluster) -> tuple[KubeClient, list[JsonObject]]:
    """Return the client of a cluster, and every workload that the pods of its namespaces belong to.

    Raises:
        TargetError: the API does not answer, or does not let us.
    """
    client = connect(cluster)
    view = PodView(client, cluster.namespaces)
    view.refresh()
    return client, find_workloads(client, view.pods)

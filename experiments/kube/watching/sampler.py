"""Watches workloads and nodes of a cluster while a game day runs: a row of each at every change of it.

By watches, so that a game day costs the API a handful of calls a minute. Each second there is one row at
least, of any of them: it says that all are as they were. None is written while the API does not answer, so
that silence is never taken for health.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

from experiments.kube.client import GONE, ApiRefused, KubeClient, connect
from experiments.kube.cluster import Cluster
from experiments.kube.pods.pod import condition_of, without_bulk
from experiments.kube.pods.workloads import Counted, find_workloads
from experiments.kube.watching.observed import node_trouble
from experiments.kube.watching.pod_view import PodView
from experiments.kube.watching.samples import KUBE_SERIES, NODE, workload_subject
from experiments.kube.watching.tally import Tally
from probes.errors import RecordError, TargetError
from probes.json_types import JsonObject
from reports.record import RunWriter

EVERY_S = 1.0
FRESH_NS = 8_000_000_000  # a watch ends in good order every 5 s; beyond this nobody has told us anything
_TURN_S = 5.0


class _Space:
    """The workloads of one namespace, as whoever watches it has last counted them."""

    def __init__(self, client: KubeClient, name: str, workloads: Sequence[JsonObject]) -> None:
        self.view = PodView(client, [name])
        self._tally = Tally(workloads, self.view)
        self.counted: list[Counted] = []
        self.seen_ns = 0  # as of when

    def count(self) -> None:
        """Count anew."""
        seen_ns = self.view.seen_ns
        self.counted = self._tally.rows()
        self.seen_ns = seen_ns


class KubeSampler:
    """Samples in threads of its own, from ``start`` to ``stop``."""

    def __init__(
        self, client: KubeClient, workloads: Sequence[JsonObject], nodes: Sequence[str], writer: RunWriter
    ) -> None:
        self._nodes, self._writer = nodes, writer
        own: dict[str, list[JsonObject]] = {}
        for row in workloads:
            own.setdefault(str(row["namespace"]), []).append(row)
        self._spaces = [_Space(client, name, rows) for name, rows in own.items()]
        self._written: dict[str, JsonObject] = {}  # by subject, what was said last
        self._client = client
        self._known_nodes: dict[str, JsonObject] = {}
        self._nodes_seen_ns = 0
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._last_ns = 0
        self.error: RecordError | None = None  # what ended the sampling, for the main thread to raise
        watches = [
            threading.Thread(target=self._watch_pods, args=(space,), daemon=True, name="kube-pods")
            for space in self._spaces
        ]
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
            self._write(is_tick=True)

    def _watch_pods(self, space: _Space) -> None:
        def has_to_end() -> bool:
            space.count()
            self._write()
            return self._leaving.is_set()

        while not self._leaving.is_set():
            try:
                space.view.follow(has_to_end, within_s=math.inf)
            except TargetError as error:
                self._silent(error)

    def _watch_nodes(self) -> None:
        while not self._leaving.is_set():
            try:
                rows, version = self._client.listed_at("/api/v1/nodes", without_bulk)
                every = {str(row["metadata"]["name"]): row for row in rows}
                self._known_nodes = {name: every[name] for name in self._nodes if name in every}
                self._nodes_seen_ns = time.time_ns()
                self._follow_nodes(version)
            except TargetError as error:
                self._silent(error)

    def _follow_nodes(self, version: str) -> None:
        try:
            while not self._leaving.is_set():
                for change in self._client.watch("/api/v1/nodes", version, within_s=_TURN_S):
                    version = str(change["object"]["metadata"]["resourceVersion"])
                    self._take_node(change)
                self._nodes_seen_ns = time.time_ns()
        except ApiRefused as error:
            if error.status != GONE:  # the version is too old: listed anew
                raise

    def _take_node(self, change: JsonObject) -> None:
        self._nodes_seen_ns = time.time_ns()
        name = str(change["object"]["metadata"].get("name", ""))
        if name not in self._nodes:  # of a thousand others nothing is said, nor kept
            return
        if change["type"] in ("ADDED", "MODIFIED"):
            self._known_nodes[name] = change["object"]
        elif change["type"] == "DELETED":
            self._known_nodes.pop(name, None)
        self._write()

    def _silent(self, error: TargetError) -> None:
        if not self._leaving.is_set():
            self._writer.event("controller", "cluster.silent", reason=str(error))
        self._leaving.wait(EVERY_S)

    def _write(self, *, is_tick: bool = False) -> None:
        """Write a row of each that has changed, at a tick of one at least, unless what is known is stale."""
        with self._lock:
            t_ns = max(time.time_ns(), self._last_ns + 1)
            ages = [t_ns - space.seen_ns for space in self._spaces]
            ages += [t_ns - self._nodes_seen_ns] if self._nodes else []
            if self._leaving.is_set() or self.error is not None or max(ages, default=0) > FRESH_NS:
                return
            self._last_ns = t_ns
            rows = self._rows()
            changed = [row for row in rows if self._written.get(row["subject"]) != row]
            self._written |= {row["subject"]: row for row in changed}
            at = {"t_ns": t_ns, "seen_ns": t_ns - max(ages, default=0)}
            try:
                for row in changed or rows[-1:] if is_tick else changed:
                    self._writer.sample(KUBE_SERIES, at | row)
            except RecordError as error:
                self.error = error

    def _rows(self) -> list[JsonObject]:
        rows = []
        for workload, seen in (row for space in self._spaces for row in space.counted):
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

"""Follows the pods of a run by one watch, however many they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from burnin.fleet.launchers.kubernetes import RUN_LABEL
from burnin.fleet.launchers.pod_story import GONE
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import KubeClient

JOB_LABEL = "batch.kubernetes.io/job-name"
_ROUND_S = 30.0  # after which the watch begins anew, from a fresh list
_AGAIN_S = 1.0


class PodWatch:
    """The last that was seen of each Job's pod; it follows them in a thread until it is closed."""

    def __init__(self, client: KubeClient, namespace: str, run: str) -> None:
        self._client, self._run = client, run
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._pods: dict[str, JsonObject] = {}
        self._changed = threading.Condition()
        self._closed = threading.Event()
        threading.Thread(target=self._follow, name="pods", daemon=True).start()

    def until(
        self, job: str, condition: Callable[[JsonObject | None], bool], within_s: float
    ) -> JsonObject | None:
        """Wait until the pod of a Job is so, and return it as it is then or after ``within_s``."""
        with self._changed:
            self._changed.wait_for(
                lambda: condition(self._pods.get(job)) or self._closed.is_set(), timeout=max(within_s, 0.0)
            )
            return self._pods.get(job)

    def close(self) -> None:
        """Let go whoever waits, and stop at the next turn."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    def _follow(self) -> None:
        query = {"labelSelector": f"{RUN_LABEL}={self._run}"}
        while not self._closed.is_set():
            try:
                rows, version = self._client.listed_at(self._path, **query)
                self._take_list(rows)
                for change in self._client.watch(self._path, version, within_s=_ROUND_S, **query):
                    self._take(change)
                    if self._closed.is_set():
                        return
            except TargetError:  # away, or the version is too old: what was seen stays, and it is asked again
                time.sleep(_AGAIN_S)

    def _take_list(self, rows: list[JsonObject]) -> None:
        there = {row["metadata"]["labels"].get(JOB_LABEL, ""): row for row in rows}
        with self._changed:
            for job, pod in self._pods.items():
                if job not in there:
                    pod[GONE] = True
            self._pods.update(there)
            self._changed.notify_all()

    def _take(self, change: JsonObject) -> None:
        if change["type"] == "BOOKMARK":
            return
        pod = dict(change["object"])
        if change["type"] == "DELETED":
            pod[GONE] = True
        with self._changed:
            self._pods[pod["metadata"]["labels"].get(JOB_LABEL, "")] = pod
            self._changed.notify_all()

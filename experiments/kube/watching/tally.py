"""How workloads stand, counted anew only where a pod of theirs has changed: thousands change one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from experiments.kube.pods.workloads import Counted, belongs, count
from experiments.kube.watching.pod_view import PodView
from probes.json_types import JsonObject


class Tally:
    """Counts the pods of a view by workload; only for the thread that follows the view."""

    def __init__(
        self, workloads: Sequence[JsonObject], view: PodView, *, without: Collection[str] = ()
    ) -> None:
        self._workloads, self._view, self._without = workloads, view, without
        self._changes: dict[str, int] = {}  # of each controller, when its pods were counted
        self._controllers: dict[int, list[str]] = {at: [] for at in range(len(workloads))}
        self._counted: dict[int, JsonObject] = {}

    def rows(self) -> list[Counted]:
        """Return each workload, and how it stands now."""
        changed = [uid for uid, times in self._view.changes.items() if self._changes.get(uid) != times]
        for uid in changed:
            self._learn(uid)
        for at, workload in enumerate(self._workloads):
            if at not in self._counted or not {*changed}.isdisjoint(self._controllers[at]):
                own = [pod for uid in self._controllers[at] for pod in self._view.pods_under(uid)]
                self._counted[at] = count(workload, own, without=self._without)
        return [(workload, self._counted[at]) for at, workload in enumerate(self._workloads)]

    def _learn(self, controller: str) -> None:
        """Note whose pods a controller has: one look at one of them, since all are made alike."""
        is_new = controller not in self._changes
        pods = self._view.pods_under(controller)
        if is_new and not pods:
            return
        self._changes[controller] = self._view.changes[controller]
        for at, workload in enumerate(self._workloads if is_new else ()):
            if belongs(workload, pods[0]):
                self._controllers[at].append(controller)

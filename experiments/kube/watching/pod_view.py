"""The pods of some namespaces, kept up to date by watching: one list, then only what changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from experiments.kube.client import GONE, ApiRefused, KubeClient
from experiments.kube.pods.pod import controller_of, node_of, uid_of, without_bulk
from probes.json_types import JsonObject

_TURN_S = 5.0  # of one watch: an end in good order shows that the API still answers
_SHARED_TURN_S = 1.0  # where several namespaces are watched in turn


class PodView:
    """What is known of the pods of these namespaces; of one node only, where that is named."""

    def __init__(self, client: KubeClient, namespaces: Iterable[str], *, node: str = "") -> None:
        self._client = client
        self._query = {"fieldSelector": f"spec.nodeName={node}"} if node else {}
        self._limit = {"limit": 0} if node else {}  # few; some API servers look through all for pages of them
        self._paths = {name: f"/api/v1/namespaces/{name}/pods" for name in namespaces}
        self._versions: dict[str, str] = {}
        self._pods: dict[str, dict[str, JsonObject]] = {name: {} for name in self._paths}
        self._of: dict[str, dict[str, JsonObject]] = {}  # the same by the uid of their controller
        self.changes: dict[str, int] = {}  # by the uid of a controller: how often its pods have changed
        self.seen_ns = 0  # when the API last told us anything

    @property
    def pods(self) -> list[JsonObject]:
        """Every pod."""
        return [pod for known in tuple(self._pods.values()) for pod in tuple(known.values())]

    def pods_under(self, controller: str) -> list[JsonObject]:
        """Return the pods whose controller has this uid."""
        return [*self._of.get(controller, {}).values()]

    def refresh(self) -> None:
        """List every pod anew.

        Raises:
            TargetError: the API does not answer, or does not let us.
        """
        for name in self._paths:
            self._list(name)

    def follow(self, told: Callable[[], bool], *, within_s: float) -> bool:
        """Watch until ``told``, which is called at each change, says that it is enough; say whether it did.

        Raises:
            TargetError: the API does not answer, or does not let us.
        """
        self.refresh()
        deadline = time.monotonic() + within_s
        while not told():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            turn_s = min(left_s, _TURN_S if len(self._paths) == 1 else _SHARED_TURN_S)
            for name in self._paths:
                if self.watch_once(name, told, within_s=turn_s):
                    return True
        return True

    def watch_once(self, name: str, told: Callable[[], bool], *, within_s: float) -> bool:
        """Watch one namespace for a while; say whether ``told`` found it enough."""
        if name not in self._versions:
            self._list(name)
        path, version = self._paths[name], self._versions[name]
        changes = self._client.watch(path, version, within_s=within_s, **self._query)
        try:
            for change in changes:
                self._take(name, change)
                if change["type"] != "BOOKMARK" and told():
                    return True
            self.seen_ns = time.time_ns()
        except ApiRefused as error:
            if error.status != GONE:  # the version to go on from is too old: listed anew
                raise
            self._list(name)
        finally:
            changes.close()
        return told()

    def _list(self, name: str) -> None:
        rows, self._versions[name] = self._client.listed_at(
            self._paths[name], _slim, **self._query, **self._limit
        )
        former, self._pods[name] = self._pods[name], {uid_of(pod): pod for pod in rows}
        for pod in former.values():
            self._forget(pod)
        for pod in self._pods[name].values():
            self._remember(pod)
        self.seen_ns = time.time_ns()

    def _take(self, name: str, change: JsonObject) -> None:
        found = change["object"]
        self._versions[name] = str(found["metadata"]["resourceVersion"])
        self.seen_ns = time.time_ns()
        if change["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return
        if (former := self._pods[name].get(uid_of(found))) is not None:
            self._forget(former)
        if change["type"] == "DELETED":
            self._pods[name].pop(uid_of(found), None)
        else:
            self._pods[name][uid_of(found)] = pod = _slim(found)
            self._remember(pod)

    def _remember(self, pod: JsonObject) -> None:
        controller = _controller_uid(pod)
        self._of.setdefault(controller, {})[uid_of(pod)] = pod
        self.changes[controller] = self.changes.get(controller, 0) + 1

    def _forget(self, pod: JsonObject) -> None:
        controller = _controller_uid(pod)
        self._of[controller].pop(uid_of(pod), None)
        self.changes[controller] += 1


def _controller_uid(pod: JsonObject) -> str:
    return str((controller_of(pod) or {}).get("uid", ""))


def _slim(pod: JsonObject) -> JsonObject:
    """Keep of its spec only the node."""
    return without_bulk(pod) | {"spec": {"nodeName": node_of(pod)}}

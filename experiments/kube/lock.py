"""One game day at a time on a namespace, whatever machine it is run from: a Lease there names who has it.

A lock of the file system keeps apart who shares a folder; two people with a kubeconfig each share only the
cluster. The Lease is made before anything is broken, renewed while the day runs, and removed at its end. It
is taken from another only where that one is silent for longer than it has promised to be.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Callable, Sequence

from experiments.faults.fault import FaultRefused
from experiments.kube.deadman.lease import age_s, now_text, read_lease
from experiments.kube.undoing.steps import CONFLICT, NOT_FOUND, OK, Api
from probes.errors import ConfigError, SuiteError, TargetError
from probes.json_types import JsonObject

LOCK = "overproof-gameday"
LOCK_S = 60  # longer than a dead-man needs: who takes over finds what is undone
RENEW_EVERY_S = 5.0
_LOOK_S = 2 * RENEW_EVERY_S + 1  # clocks differ: a holder that lives renews meanwhile, whatever ours says
_CALL_S = 10.0  # one call may take this long
_TRIES_MAX = 3


def leases_path(namespace: str) -> str:
    """Return where the API keeps the leases of a namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def lock_path(namespace: str) -> str:
    """Return where the API keeps the lock of a namespace."""
    return f"{leases_path(namespace)}/{LOCK}"


def holder_of(run: str) -> str:
    """Return how a game day is named to others who want the same namespace."""
    return f"{run} on {os.uname().nodename}, process {os.getpid()}"


def is_of(found: JsonObject, run: str) -> bool:
    """Say whether a lock is that of a run; any process of the run may ask."""
    return bool(run) and str(found["spec"].get("holderIdentity") or "").startswith(f"{run} ")


def why_taken(found: JsonObject | None, run: str, now: datetime.datetime) -> str:
    """Say who else has a namespace; empty: nobody, or one who has been silent for too long."""
    if found is None or is_of(found, run):
        return ""
    age = age_s(found, now)
    left_s = float(found["spec"]["leaseDurationSeconds"]) - age
    if left_s <= 0:
        return ""
    who, since = found["spec"].get("holderIdentity"), found["spec"].get("acquireTime")
    return (
        f"game day {who} has it since {since}, and said so {age:.0f} s ago; "
        f"wait for its end, or, should it be gone, {left_s:.0f} s"
    )


def look_at_lock(api: Api, namespace: str) -> str:
    """Say who has a namespace, before we have taken it; empty: nobody.

    Raises:
        TargetError: the API server does not say.
    """
    return why_taken(read_lease(lock_path(namespace), api), "", datetime.datetime.now(datetime.UTC))


def check_lock(api: Api, namespaces: Sequence[str], run: str) -> None:
    """See, right before something is broken, that no other game day has come to these namespaces.

    Raises:
        FaultRefused: one has, or ours has not been heard of for so long that one may.
    """
    for name in namespaces:
        found, now = read_lease(lock_path(name), api), datetime.datetime.now(datetime.UTC)
        why = why_taken(found, run, now)
        if not why and found is not None and is_of(found, run) and age_s(found, now) > LOCK_S - _CALL_S:
            why = f"our own lock was not renewed for {age_s(found, now):.0f} s"
        if why:
            raise FaultRefused(f"namespace {name}: {why}; nothing is injected")


class ClusterLock:
    """The lock of one game day on all its namespaces, from the controller's side."""

    def __init__(
        self, api: Api, namespaces: Sequence[str], run: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._api, self._run, self._sleep = api, run, sleep
        self._namespaces = sorted(namespaces)
        self._versions: dict[str, str] = {}  # of the lease of each namespace, as we last wrote it
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_left, name="cluster lock", daemon=True)
        self.lost = ""  # who has it instead, for the main thread to stop the day

    def take(self) -> None:
        """Take every namespace, and go on saying that we have them.

        Raises:
            ConfigError: another game day has one.
            TargetError: the API server does not let us, or does not answer.
        """
        for name in self._namespaces:
            self._versions[name] = self._take(name)
        self._thread.start()

    def _take(self, namespace: str) -> str:
        for _ in range(_TRIES_MAX):
            meta = {"name": LOCK, "namespace": namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
            status, answer = self._api.ask("POST", leases_path(namespace), body | {"spec": self._spec()})
            if status == CONFLICT and (found := read_lease(lock_path(namespace), self._api)) is not None:
                if why := why_taken(found, self._run, datetime.datetime.now(datetime.UTC)):
                    raise ConfigError(f"namespace {namespace}: {why}")
                self._sleep(_LOOK_S)
                status, answer = self._write(namespace, found["metadata"]["resourceVersion"], self._spec())
            if status in (OK, 201):
                return str(answer["metadata"]["resourceVersion"])
            if status not in (CONFLICT, NOT_FOUND):  # else it was renewed, or removed, between two calls
                raise TargetError(
                    f"{lock_path(namespace)}: the API server says {status}: {answer.get('message')}; "
                    "nothing is injected"
                )
        raise ConfigError(f"namespace {namespace}: others take it and leave it at this moment; try again")

    def _spec(self) -> JsonObject:
        said, now = {"holderIdentity": holder_of(self._run), "leaseDurationSeconds": LOCK_S}, now_text()
        return said | {"acquireTime": now, "renewTime": now}

    def _write(self, namespace: str, version: str, spec: JsonObject) -> tuple[int, JsonObject]:
        """Write into a lease that nobody else has written into since."""
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        return self._api.ask("PATCH", lock_path(namespace), body)

    def _renew_until_left(self) -> None:
        while not self._leaving.wait(RENEW_EVERY_S) and not self.lost:
            # The server may be away; who comes after us waits for longer than that, and asks it too.
            with contextlib.suppress(SuiteError):
                self.renew()

    def renew(self) -> None:
        """Say once that we still have them; note in ``lost`` where we do not.

        Raises:
            TargetError: the API server does not answer.
        """
        for name in self._namespaces:
            status, answer = self._write(name, self._versions[name], {"renewTime": now_text()})
            if status == CONFLICT and (found := read_lease(lock_path(name), self._api)) is not None:
                if is_of(found, self._run):  # our own write, whose answer did not come
                    self._versions[name] = str(found["metadata"]["resourceVersion"])
                    continue
                self.lost = f"namespace {name}: {found['spec'].get('holderIdentity')} has taken it from us"
            elif status == OK:
                self._versions[name] = str(answer["metadata"]["resourceVersion"])
            elif status in (CONFLICT, NOT_FOUND):
                self.lost = f"namespace {name}: somebody has removed our lock {lock_path(name)}"

    def release(self) -> None:
        """Give every namespace back; what cannot be removed is free once it has lapsed."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * _CALL_S)
        for name in self._namespaces:
            with contextlib.suppress(SuiteError):
                self._remove(name)

    def _remove(self, namespace: str) -> None:
        found = read_lease(lock_path(namespace), self._api)
        if found is not None and is_of(found, self._run):
            meta = found["metadata"]
            wanted = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
            self._api.ask("DELETE", lock_path(namespace), {"preconditions": wanted})

"""What the controller keeps in the cluster during a game day: mirror, lease, and the dead-man."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from experiments.kube.deadman.lease import RENEW_EVERY_S, beat_of, read_lease, renew
from experiments.kube.deadman.mirror import (
    UNDONE,
    Place,
    entries_of,
    place_of,
    read_mirror,
)
from experiments.kube.deadman.objects import (
    SERVICE_ACCOUNT,
    DeadManSettings,
    code_object,
    job_object,
    lease_object,
    mirror_object,
)
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.undoing.steps import NOT_FOUND, OK, Api
from probes.child import wait_until
from probes.errors import ConfigError, SuiteError, TargetError
from probes.json_types import JsonObject

GONE_WITHIN_S = 30.0
_POLL_S = 0.5
_MANIFESTS = Path(__file__).parent.parent / "manifests"


def start_dead_man(api: Api, run: str, settings: DeadManSettings, *, away_from: Sequence[str]) -> Place:
    """Put everything of a run into the cluster; return once the dead-man there has said that it watches.

    Raises:
        ConfigError: the cluster lacks its namespace or service account.
        TargetError: it does not start, or cannot say so; nothing may be broken.
    """
    place, nonce = place_of(run, settings.namespace), secrets.token_hex(8)
    holder = f"{os.uname().nodename}/{os.getpid()}"
    if why := why_not_set_up(api, settings.namespace):
        raise ConfigError(f"nobody would undo without us: {why}")
    mirror = _create(api, place.config_maps, mirror_object(place, run, holder))
    try:
        _create(api, place.leases, lease_object(place, place.name, mirror, holder))
        _create(api, place.leases, lease_object(place, f"{place.name}-dead-man", mirror, ""))
        _create(api, place.config_maps, code_object(place, mirror))
        _create(api, place.jobs, job_object(place, mirror, settings, nonce, away_from))
        _await_beat(api, place, nonce, holder, within_s=settings.ready_within_s)
    except BaseException:
        with contextlib.suppress(SuiteError):
            remove_all(api, place)
        raise
    return place


def why_not_set_up(api: Api, namespace: str) -> str:
    """Say what the cluster lacks that the dead-man runs under; empty: nothing."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{SERVICE_ACCOUNT}"
    status, answer = api.ask("GET", path)
    if status == NOT_FOUND:
        return f"no service account {SERVICE_ACCOUNT} in namespace {namespace}; kubectl apply -f {_MANIFESTS}"
    return "" if status == OK else f"{path}: the API server says {status}: {answer.get('message')}"


def _create(api: Api, path: str, body: JsonObject) -> JsonObject:
    status, answer = api.ask("POST", path, body)
    if status >= 300:
        raise TargetError(
            f"{path}/{body['metadata']['name']}: the API server says {status}: {answer.get('message')}; "
            "nothing is injected"
        )
    return answer


def _await_beat(api: Api, place: Place, nonce: str, holder: str, *, within_s: float) -> None:
    def beats() -> bool:
        renew(place.lease, api, holder)
        found = read_lease(place.heartbeat, api)
        return found is not None and beat_of(found).nonce == nonce and bool(beat_of(found).holder)

    if not wait_until(beats, timeout_s=within_s, interval_s=_POLL_S):
        raise TargetError(
            f"the dead-man in the cluster does not say within {within_s:g} s that it watches: "
            f"{why_silent(api, place)}; nothing is injected"
        )


def why_silent(api: Api, place: Place) -> str:
    """Say what became of the dead-man's pod."""
    status, found = api.ask(
        "GET", f"/api/v1/namespaces/{place.namespace}/pods?labelSelector=job-name%3D{place.name}"
    )
    if status != OK:
        return f"its pod cannot be looked at: {found.get('message')}"
    said = [_state_of(pod) for pod in found.get("items") or ()]
    return "; ".join(said) or "it has no pod: look at the Job's events"


def _state_of(pod: JsonObject) -> str:
    status = pod.get("status") or {}
    waiting = [
        f"{state.get('reason')}: {state.get('message', '')}"[:300]
        for each in status.get("containerStatuses") or ()
        for state in each["state"].values()
        if state.get("reason")
    ]
    unmet = [
        f"{c.get('reason')}: {c.get('message')}"
        for c in status.get("conditions") or ()
        if c["status"] != "True"
    ]
    return f"pod {pod['metadata']['name']} is {status.get('phase')}: {'; '.join(waiting or unmet)}"


class LeaseRenewal:
    """Renews the controller's lease in a thread until the game day ends."""

    def __init__(self, api: Api, place: Place) -> None:
        self._api, self._place = api, place
        self._holder = f"{os.uname().nodename}/{os.getpid()}"
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="dead-man lease", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _renew(self) -> None:
        while not self._leaving.wait(RENEW_EVERY_S):
            # The server may be away; where it stays so, nothing is injected and the dead-man takes over.
            with contextlib.suppress(SuiteError):
                renew(self._place.lease, self._api, self._holder)

    def stop(self) -> None:
        """End; from now on the dead-man counts."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15.0)


def remove_all(api: Api, place: Place) -> bool:
    """Remove everything of a run from the cluster; return whether the mirror, which owns the rest, is gone.

    Raises:
        TargetError: the API server does not do it.
    """
    for path in (
        f"{place.jobs}/{place.name}?propagationPolicy=Background",
        place.lease,
        place.heartbeat,
        f"{place.config_maps}/{place.name}-code",
        place.mirror,
    ):
        status, answer = api.ask("DELETE", path)
        if status not in (OK, 202, NOT_FOUND):
            raise TargetError(f"{path}: the API server says {status}: {answer.get('message')}")
    return wait_until(lambda: read_mirror(place, api) is None, timeout_s=GONE_WITHIN_S, interval_s=_POLL_S)


def end_dead_man(api: Api, place: Place) -> list[str]:
    """Remove everything of a run, unless the mirror has something that is not undone; return what that is.

    Raises:
        TargetError: the API server does not answer; the dead-man stays and does what is left.
    """
    found = read_mirror(place, api)
    left = [] if found is None else [e.subject for e in entries_of(found) if e.state != UNDONE]
    if not left:
        remove_all(api, place)
    return left


class DeadManHold:
    """The dead-man of one game day, from the controller's side."""

    def __init__(
        self, api: ClientApi, folder: Path, settings: DeadManSettings, away_from: Sequence[str]
    ) -> None:
        self._api, self._folder, self._settings, self._away_from = api, folder, settings, away_from
        self._place: Place | None = None
        self._renewal: LeaseRenewal | None = None

    def take(self) -> Place:
        """Start it and see that it watches.

        Raises:
            ConfigError, TargetError: nothing may be broken.
        """
        place = start_dead_man(self._api, self._folder.name, self._settings, away_from=self._away_from)
        self._place, self._renewal = place, LeaseRenewal(self._api, place)
        self._renewal.start()
        return place

    def release(self) -> list[str]:
        """End it where nothing is left to undo; return what is, which it then undoes itself."""
        if self._place is None or self._renewal is None:
            return []
        self._renewal.stop()
        place, self._place = self._place, None
        try:
            return end_dead_man(self._api, place)
        except SuiteError as error:  # it stays, and undoes what is left once it can
            return [str(error)]

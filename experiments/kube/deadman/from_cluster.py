"""Undoing from the mirrors in a cluster, for whoever has no run folder, and clearing them away."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from experiments.kube.deadman.hold import remove_all
from experiments.kube.deadman.lease import RENEW_EVERY_S, read_lease
from experiments.kube.deadman.mirror import (
    NAMESPACE,
    RUN_LABEL,
    MirrorClosed,
    MirrorEntry,
    Place,
    entries_of,
    read_mirror,
    undo_entry,
    write_fired,
    write_outcome,
)
from experiments.kube.undoing.client_api import ClientApi
from experiments.kube.undoing.steps import OK, Api
from probes.errors import TargetError
from probes.json_types import JsonObject

_CODE = "-code"
_LOOK_S = RENEW_EVERY_S * 2 + 1  # a controller that lives renews its lease meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entry of a mirror, and what came of it."""

    run: str
    entry: MirrorEntry
    is_restored: bool
    did: str


def undo_from_cluster(context: str, *, namespace: str = NAMESPACE) -> tuple[int, list[Found]]:
    """Undo what the mirrors of a cluster say; return how many mirrors there are, and what came of each entry.

    Raises:
        ConfigError, TargetError: there is no such context, or its cluster does not answer.
    """
    from experiments.kube.client import connect
    from experiments.kube.cluster import Cluster

    api = ClientApi(client=connect(Cluster(namespaces=(), context=context)))
    return undo_mirrors(api, namespace)


def undo_mirrors(
    api: Api, namespace: str, *, sleep: Callable[[float], None] = time.sleep
) -> tuple[int, list[Found]]:
    """Undo every mirror whose controller is silent; take away those with nothing left."""
    mirrors = read_mirrors(api, namespace)
    silent = _silent([place for place, _ in mirrors], api, sleep)
    found: list[Found] = []
    for place, mirror in mirrors:
        if place in silent:
            found += _undo_mirror(place, api)
        else:
            found += [
                Found(
                    run=place.name,
                    entry=entry,
                    is_restored=False,
                    did="its game day runs: stop it first, or wait for its end",
                )
                for entry in entries_of(mirror)
                if entry.is_pending
            ]
    return len(mirrors), found


def read_mirrors(api: Api, namespace: str) -> list[tuple[Place, JsonObject]]:
    """Return every mirror there, oldest first."""
    path = f"/api/v1/namespaces/{namespace}/configmaps?labelSelector={RUN_LABEL.replace('/', '%2F')}"
    status, answer = api.ask("GET", path)
    if status != OK or "items" not in answer:
        raise TargetError(f"{path}: the API server says {status}: {answer.get('message')}")
    rows = [row for row in answer["items"] if not row["metadata"]["name"].endswith(_CODE)]
    rows.sort(key=lambda row: str(row["metadata"]["creationTimestamp"]))
    return [(Place(namespace=namespace, name=row["metadata"]["name"]), row) for row in rows]


def _silent(places: list[Place], api: Api, sleep: Callable[[float], None]) -> set[Place]:
    """Return those whose lease nobody renews; clocks are not compared, since they may differ."""
    if not places:
        return set()
    before = {place: _renewed(place, api) for place in places}
    sleep(_LOOK_S)
    return {place for place in places if _renewed(place, api) == before[place]}


def _renewed(place: Place, api: Api) -> str:
    found = read_lease(place.lease, api)
    return "" if found is None else str(found["spec"].get("renewTime"))


def _undo_mirror(place: Place, api: Api) -> list[Found]:
    found: list[Found] = []
    by = f"gameday undo --from-cluster, on {os.uname().nodename}"
    try:
        write_fired(place, api, by)  # from here on nothing more is armed
        mirror = read_mirror(place, api)
    except MirrorClosed:  # it has just been cleared away
        mirror = None
    for entry in reversed(entries_of(mirror) if mirror else []):
        found.append(_undo(place, api, entry, by))
    if all(each.is_restored for each in found):
        remove_all(api, place)
    return found


def _undo(place: Place, api: Api, entry: MirrorEntry, by: str) -> Found:
    if not entry.is_pending and not any(step.made for step in entry.steps):  # a dead-man deletes nothing
        return Found(run=place.name, entry=entry, is_restored=True, did=f"{entry.did} (by {entry.by})")
    try:
        noted, _ = undo_entry(entry, api, by=by)
    except TargetError as error:
        return Found(run=place.name, entry=entry, is_restored=False, did=str(error))
    write_outcome(place, api, noted)
    return Found(run=place.name, entry=entry, is_restored=not noted.is_pending, did=noted.did)

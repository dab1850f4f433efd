"""Samples of a cluster's workloads while a game day runs, and what they show: pure functions over rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from probes.json_types import JsonObject

KUBE_SERIES = "kube"
API_SERIES = "kube_api"  # our own way to the API, of a day that is to be in it
API_ASK_S = 5.0  # that one of its rows gives the API for an answer
OF_API = "api."  # begins the faults of that way
WORKLOAD = "workload:"
NODE = "node:"


def workload_subject(row: JsonObject) -> str:
    """Return what a workload is called in the series."""
    return f"{WORKLOAD}{row['kind']}/{row['namespace']}/{row['name']}"


def find_whole(
    rows: Sequence[JsonObject], captured: Iterable[JsonObject], *, replaced: set[str], since_ns: int
) -> int | None:
    """Return the first moment at which all that was hit is whole again.

    That is every workload with as many ready as it is to have, none of those ``replaced`` among them and none
    that waits in vain; and, once only undoing is to end it, every node that was hit takes pods.
    """
    wanted = {workload_subject(row) for each in captured for row in each["workloads"]}
    nodes = {f"{NODE}{name}" for each in captured for name in nodes_awaited(each)}
    has_blinded = any(str(each["kube_fault"]).startswith(OF_API) for each in captured)
    for t_ns, seen in by_time(rows, since_ns):
        if not wanted | nodes <= seen.keys():
            continue
        if has_blinded and max(int(row["seen_ns"]) for row in seen.values()) < since_ns:
            continue  # what was known before we were cut off says nothing of what is
        are_back = all(seen[name]["is_serving"] and not replaced & ids(seen[name]) for name in wanted)
        if are_back and all(seen[name]["is_serving"] for name in nodes):
            return t_ns
    return None


def nodes_awaited(captured: JsonObject) -> list[str]:
    """Return the nodes that have to take pods again before a fault is over: of a cordon, not of a drain."""
    is_awaited = captured["kube_fault"] in ("node.cordon", "node.pressure", "device-plugin.lose")
    return [str(victim["name"]) for victim in captured["victims"]] if is_awaited else []


def by_time(rows: Iterable[JsonObject], since_ns: int) -> list[tuple[int, dict[str, JsonObject]]]:
    """Return each moment at which anything was written, with the row of each subject that holds then.

    A subject has a row when it changes. That any is written at all says that the others are as they were.
    """
    found: list[tuple[int, dict[str, JsonObject]]] = []
    holds: dict[str, JsonObject] = {}
    for t_ns, own in groupby(sorted(rows, key=_time_of), key=_time_of):
        holds = holds | {str(row["subject"]): row for row in own}
        if t_ns >= since_ns:
            found.append((t_ns, holds))
    return found


def _time_of(row: JsonObject) -> int:
    return int(row["t_ns"])


def ids(row: JsonObject) -> set[str]:
    """Return the pods that were ready, and their containers."""
    return {*str(row.get("uids") or "").split(), *str(row.get("containers") or "").split()}


def hit_ids(captured: JsonObject) -> set[str]:
    """Return what another one has to replace: the containers, where only those were hit, else the pods."""
    if "containers" in captured:
        return {str(row["id"]) for row in captured["containers"]}
    return {str(pod["uid"]) for pod in captured["hit_pods"]}


def pods_in(row: JsonObject, which: str) -> set[str]:
    """Return the pods of a workload that were there (``made``), or whose containers ran (``started``)."""
    return set(str(row.get(which) or "").split())

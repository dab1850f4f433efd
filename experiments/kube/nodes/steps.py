"""What is done to nodes as objects of the API, and what takes it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from experiments.kube.choosing.allowed import node_path
from experiments.kube.pods.pod import uid_of
from experiments.kube.undoing.marks import new_mark
from experiments.kube.undoing.steps import MARK, Change, Field, UndoStep, make_step, value_at
from probes.json_types import JsonObject

MakeStep = Callable[[JsonObject, str], UndoStep]  # of a node, and the run
OUT_OF_SERVICE: Final = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}
_MACHINE: Final = ("status", "nodeInfo", "machineID")
_OF_THE_PLATFORM = "node.kubernetes.io/"  # begins taints that controllers set and take off


def out_of_service_step(node: JsonObject, run: str) -> UndoStep:
    """Return what takes off the taint that we are about to put on a node."""
    name = str(node["metadata"]["name"])
    where = ("spec", "taints", {"key": OUT_OF_SERVICE["key"], "effect": OUT_OF_SERVICE["effect"]})
    ours = [(where, OUT_OF_SERVICE)]
    return make_step(node, subject=f"node/{name}", path=node_path(name), ours=ours, mark=new_mark(run))


def deletion_step(node: JsonObject, run: str) -> UndoStep:
    """Return what gives a node that we are about to delete what its kubelet would not make again.

    That is labels, annotations, taints and cordon. What it has with another value then is left alone: its
    kubelet, or somebody, says so by now. So is another machine by its name, which nobody may have allowed
    us to hit. An annotation is left on it: what its owner then takes off is not given back again.
    """
    name, machine = str(node["metadata"]["name"]), value_at(node, _MACHINE)
    return UndoStep(
        subject=f"node/{name}",
        path=node_path(name),
        uid=uid_of(node),
        changes=(
            Change(path=_MACHINE, before=machine, ours=machine),
            *(Change(path=path, before=value, ours=None) for path, value in _kept(node)),
        ),
        mark=Change(
            path=("metadata", "annotations", f"{MARK}{new_mark(run)}"),
            before="deleted by a game day, and given back what it had",
            ours=None,
        ),
        is_deleted=True,
    )


def _kept(node: JsonObject) -> list[tuple[tuple[Field, ...], object]]:
    kept: list[tuple[tuple[Field, ...], object]] = [
        (("metadata", kind, key), value)
        for kind in ("labels", "annotations")
        for key, value in (node["metadata"].get(kind) or {}).items()
    ]
    for taint in node["spec"].get("taints") or []:
        if not taint["key"].startswith(_OF_THE_PLATFORM):
            kept.append((("spec", "taints", {"key": taint["key"], "effect": taint["effect"]}), taint))
    return kept + ([(("spec", "unschedulable"), True)] if node["spec"].get("unschedulable") else [])

"""``faults`` and ``harmless`` of an experiment's extension, as a file states them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from experiments.declared.fault import Declared, foreign_actions, module_of
from experiments.targets.all import OUR_MODULES
from probes.json_types import JsonObject
from probes.spec import Spec

WITHIN_S = 10.0


class FaultSpec(Spec):
    """What an action that is not ours breaks."""

    action: str = Field(description="Name of the action in the method.")
    subject: str = Field(min_length=1, description="What it hits, such as deployment:chat.")
    verify: str | dict[str, Any] | None = Field(
        default=None,
        description="Name of a probe of the experiment, or a probe: within its tolerance the fault is there.",
    )
    undo: str | None = Field(default=None, description="Name of the rollback that ends it.")
    ends_by: Literal["undo", "platform"] = Field(default="undo", description="Who is to end it.")
    within_s: float = Field(
        default=WITHIN_S, gt=0, le=600, description="Seconds in which it takes hold, and in which it is gone."
    )


def to_faults(
    specs: Sequence[FaultSpec], harmless: Sequence[str], document: JsonObject
) -> tuple[Declared, ...]:
    """Return the declared faults, with the activities that they name.

    Raises:
        ValueError: one names what the experiment does not have.
    """
    actions = {str(activity["name"]) for activity in foreign_actions(document)}
    for name in [spec.action for spec in specs] + [*harmless]:
        if name not in actions:
            raise ValueError(
                f"{name!r} is no action of the method other than ours; there: {_listed(actions)}"
            )
    if twice := {spec.action for spec in specs if [s.action for s in specs].count(spec.action) > 1}:
        raise ValueError(f"{_listed(twice)}: declared twice; keep one")
    return tuple(_to_fault(spec, document) for spec in specs)


def _to_fault(spec: FaultSpec, document: JsonObject) -> Declared:
    if spec.ends_by == "undo" and spec.undo is None:
        raise ValueError(f"{spec.action!r}: undo is missing: a fault that only undoing ends needs one")
    return Declared(
        action=spec.action,
        subject=spec.subject,
        ends_by=spec.ends_by,
        verify=None if spec.verify is None else _probe(spec, document),
        undo=None if spec.undo is None else _undo(spec, document),
        within_s=spec.within_s,
    )


def _probe(spec: FaultSpec, document: JsonObject) -> JsonObject:
    from experiments.guards.spec import check_probe

    if isinstance(spec.verify, dict):
        return check_probe({"name": f"see {spec.action}", "type": "probe"} | spec.verify)
    hypothesis = document.get("steady-state-hypothesis") or {}
    probes = [*hypothesis.get("probes", ()), *document["method"]]
    found = next((p for p in probes if p.get("name") == spec.verify and p.get("type") == "probe"), None)
    if found is None:
        raise ValueError(f"{spec.action!r}: verify: {spec.verify!r} is no probe of this experiment")
    return check_probe(found)


def _undo(spec: FaultSpec, document: JsonObject) -> JsonObject:
    places = [*(document.get("rollbacks") or ()), *document["method"]]
    found = next((a for a in places if a.get("name") == spec.undo and a.get("type") == "action"), None)
    if found is None:
        names = {str(a.get("name")) for a in document.get("rollbacks") or ()}
        raise ValueError(f"{spec.action!r}: undo: {spec.undo!r} is none of the rollbacks: {_listed(names)}")
    if module_of(found) in OUR_MODULES:
        raise ValueError(f"{spec.action!r}: undo: {spec.undo!r} undoes our own faults only")
    assert isinstance(found, dict)
    return found


def _listed(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"

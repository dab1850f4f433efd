"""Faults by actions that are not ours, as an experiment declares them: subject, verification, undo."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from experiments.targets.all import OUR_MODULES
from experiments.targets.target import Target
from probes.json_types import JsonObject
from reports.record import mask_secrets

NAME = "declared"  # of the fault in the ledger and in the table of faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One fault."""

    action: str  # name of the activity that injects it
    subject: str
    ends_by: Literal["platform", "undo"]
    verify: JsonObject | None  # a probe: within its tolerance the fault is there; None: nobody can see it
    undo: JsonObject | None  # the activity of the experiment that ends it; None: the platform does
    within_s: float  # in which it takes hold, and is gone after its undo


def foreign_actions(document: JsonObject, harmless: Collection[str] = ()) -> Iterator[JsonObject]:
    """Yield each action of the method that is not ours and that may break something."""
    for activity in document["method"]:
        if is_foreign(activity) and activity.get("name") not in harmless:
            yield activity


def is_foreign(activity: JsonObject) -> bool:
    """Say whether an activity is an action of somebody else's."""
    return activity.get("type") == "action" and module_of(activity) not in OUR_MODULES


def module_of(activity: JsonObject) -> object:
    """Return the Python module that carries an activity out, where one does."""
    return (activity.get("provider") or {}).get("module")


def captured_of(fault: Declared, target: Target, document: JsonObject) -> JsonObject:
    """Return all that looking and undoing need, for the ledger: they may come from another process, later."""
    return {
        "target": target.name,
        "action": fault.action,
        "subject": fault.subject,
        "ends_by": fault.ends_by,
        "verify": fault.verify,
        "undo": fault.undo,
        "within_s": fault.within_s,
        "configuration": document.get("configuration"),
        "secrets": document.get("secrets"),
    }


def without_secrets(captured: JsonObject) -> JsonObject:
    """Return what may stand on the timeline, which everybody reads; the ledger is its owner's alone."""
    return mask_secrets({k: v for k, v in captured.items() if k not in ("configuration", "secrets")})

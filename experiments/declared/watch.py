"""Follows actions that are not ours through a run of Chaos Toolkit: ledger before, a look after.

Chaos Toolkit carries them out unchanged. What the experiment has declared of them is what makes a verdict.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from experiments.declared.fault import NAME, Declared, captured_of, foreign_actions, without_secrets
from experiments.experiment import LOOK_S, Experiment
from experiments.faults.declared import look_whether_gone, verify
from experiments.faults.fault import PLATFORM, UNDO
from experiments.injecting.crash_points import crash_at
from experiments.injecting.ledger import INJECTED, UNDONE, VERIFIED, Entry, Ledger, read_ledger
from experiments.live.timeline import Timeline
from probes.json_types import JsonObject

UNDECLARED = "nobody looked: the experiment's extension declares no verification of it (faults: verify)"
_SUCCEEDED = "succeeded"


class DeclaredWatch:
    """What has to be seen of one experiment's foreign actions."""

    def __init__(self, experiment: Experiment, folder: Path, timeline: Timeline) -> None:
        self._experiment = experiment
        self._folder = folder
        self._timeline = timeline
        self._declared = {fault.action: fault for fault in experiment.faults}
        names = foreign_actions(experiment.document, experiment.harmless)
        self._foreign = {str(activity["name"]) for activity in names}
        self._under_way: dict[str, tuple[JsonObject, int]] = {}  # by action: what names it, when it began

    def watches(self, activity: JsonObject, phase: str) -> bool:
        """Say whether an activity is one that may break something."""
        return phase == "method" and activity["name"] in self._foreign and activity["type"] == "action"

    def limit_s(self, activity: JsonObject) -> float:
        """Return how much longer than itself looking at an activity may take."""
        fault = self._declared.get(activity["name"])
        return LOOK_S if fault is None else LOOK_S + fault.within_s

    def before(self, activity: JsonObject, phase: str) -> None:
        """Arm the ledger before the action, and see before an undo whether there is something left to undo.

        Raises:
            RecordError: the ledger cannot be written; the action must not be carried out.
        """
        if self.watches(activity, phase):
            self._arm(activity["name"], self._declared.get(activity["name"]))
            return
        for entry in self._undone_by(activity):
            if entry.captured["ends_by"] == PLATFORM and entry.captured["verify"] is not None:
                is_gone, observed = look_whether_gone(entry.captured, within_s=0.0)
                if is_gone:
                    self._conclude(entry, did=f"nothing to do: {observed}", has_acted=False)

    def after(self, activity: JsonObject, run: JsonObject, phase: str) -> None:
        """Look at once whether a fault has taken hold, and after an undo whether it is gone."""
        if run.get("status") != _SUCCEEDED:
            return  # what was armed stays pending: whether the action did anything is unknown
        if self.watches(activity, phase) and activity["name"] in self._under_way:
            self._verify(*self._under_way.pop(activity["name"]), self._declared.get(activity["name"]))
            return
        for entry in self._undone_by(activity):
            self._see_undone(entry, str(activity["name"]))

    def _arm(self, action: str, fault: Declared | None) -> None:
        named: JsonObject = {"fault": NAME, "fidelity": "declared", "action": action}
        if fault is None:
            named |= {"id": f"undeclared-{secrets.token_hex(4)}", "subject": f"action:{action}"}
            self._under_way[action] = (named | {"ends_by": UNDO}, time.time_ns())
            return
        captured = captured_of(fault, self._experiment.target, self._experiment.document)
        named |= {"subject": fault.subject, "ends_by": fault.ends_by}
        if fault.undo is not None or fault.verify is not None:
            with Ledger(self._folder) as ledger:
                named["id"] = ledger.arm(NAME, fault.subject, captured)
        else:
            named["id"] = f"undeclared-{secrets.token_hex(4)}"
        self._timeline.note("fault.armed", **named, captured=without_secrets(captured))
        self._under_way[action] = (named, time.time_ns())
        crash_at("inject.before")

    def _verify(self, named: JsonObject, t_inject_ns: int, fault: Declared | None) -> None:
        crash_at("inject.after")
        entry = self._entry(str(named["id"]))
        if entry is not None:
            self._note(entry, INJECTED, t_inject_ns=t_inject_ns)
        self._timeline.note("fault.injected", **named, t_inject_ns=t_inject_ns)
        if fault is None or fault.verify is None:
            self._timeline.note("fault.not_verified", **named, observed=UNDECLARED)
            return
        seen = verify(captured_of(fault, self._experiment.target, self._experiment.document))
        kind = "fault.verified" if seen.is_verified else "fault.not_verified"
        if seen.is_verified and entry is not None:
            self._note(entry, VERIFIED, observed=seen.observed)
        self._timeline.note(kind, **named, observed=seen.observed)

    def _see_undone(self, entry: Entry, name: str) -> None:
        if entry.captured["verify"] is None:
            did = f"{name!r} was carried out; nobody can see whether it is gone: no verify"
            self._conclude(entry, did=did, has_acted=True, is_seen=False)
            return
        is_gone, observed = look_whether_gone(entry.captured, within_s=entry.captured["within_s"])
        if is_gone:  # else it stays pending, and is undone once more by whoever finds it
            self._conclude(entry, did=f"{name!r} was carried out; {observed}", has_acted=True)

    def _conclude(self, entry: Entry, *, did: str, has_acted: bool, is_seen: bool = True) -> None:
        detail = {"did": did, "has_acted": has_acted, "is_seen": is_seen, "by": "rollback"}
        self._note(entry, UNDONE, **detail)
        self._timeline.note("undo.verified", id=entry.id, fault=entry.fault, subject=entry.subject, **detail)

    def _note(self, entry: Entry, state: str, **detail: object) -> None:
        with Ledger(self._folder) as ledger:
            ledger.note(entry.id, state, **detail)

    def _entry(self, entry_id: str) -> Entry | None:
        return next((entry for entry in read_ledger(self._folder) if entry.id == entry_id), None)

    def _undone_by(self, activity: JsonObject) -> list[Entry]:
        """Return what is pending and declared to be ended by this activity."""
        return [
            entry
            for entry in read_ledger(self._folder)
            if entry.is_pending
            and entry.fault == NAME
            and (entry.captured["undo"] or {}).get("name") == activity["name"]
        ]

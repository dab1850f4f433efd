"""The mirror of one game day's ledger in the cluster: a ConfigMap, one key an entry.

Whoever undoes there needs neither our disk nor our process. Every write names the version that it was made
from, so that arming and firing cannot pass each other: once the dead-man has fired, nothing more is armed.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from experiments.kube.undoing.steps import (
    CONFLICT,
    NOT_FOUND,
    OK,
    Api,
    StepDone,
    UndoStep,
    carry_out,
    step_from_json,
)
from probes.errors import TargetError
from probes.json_types import JsonObject

NAMESPACE = "overproof"
RUN_LABEL = "overproof.dev/run"
ARMED, UNDONE, UNDO_FAILED = "armed", "undone", "undo_failed"
UNREADABLE = "unreadable"  # somebody has written into the mirror
FIRED_KEY = "fired"  # of the ConfigMap: when the dead-man took over, and why
_TRIES_MAX = 8


class MirrorClosed(TargetError):
    """The dead-man has fired, or there is no mirror: nothing may be injected any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the things of one game day are in the cluster."""

    namespace: str
    name: str

    @property
    def mirror(self) -> str:
        """The path of the mirror."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps/{self.name}"

    @property
    def lease(self) -> str:
        """The path of the lease that the controller renews."""
        return f"{self.leases}/{self.name}"

    @property
    def heartbeat(self) -> str:
        """The path of the lease that the dead-man renews."""
        return f"{self.leases}/{self.name}-dead-man"

    @property
    def leases(self) -> str:
        """The path of all leases there."""
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    @property
    def jobs(self) -> str:
        """The path of all jobs there."""
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def config_maps(self) -> str:
        """The path of all ConfigMaps there."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    def to_json(self) -> JsonObject:
        """Return it as plain JSON."""
        return {"namespace": self.namespace, "name": self.name}


def place_of(run: str, namespace: str = NAMESPACE) -> Place:
    """Return where the things of a run are; its name becomes one that Kubernetes takes."""
    return Place(namespace=namespace, name=re.sub(r"[^a-z0-9-]+", "-", run.lower()).strip("-"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorEntry:
    """One fault in the mirror."""

    id: str
    fault: str
    subject: str
    steps: tuple[UndoStep, ...]
    state: str = ARMED
    by: str = ""  # who undid it, or tried to
    did: str = ""
    t_armed_ns: int = 0  # by the controller's clock
    t_ns: int = 0  # of the last state after that, by the clock of whoever wrote it

    @property
    def is_pending(self) -> bool:
        """Whether this fault may still be in the cluster."""
        return self.state != UNDONE

    def to_text(self) -> str:
        """Return it as the value of its key."""
        row = asdict(self) | {"steps": [step.to_json() for step in self.steps]}
        return json.dumps(row)


def entry_from_text(key: str, text: str) -> MirrorEntry:
    """Return the entry that ``to_text`` wrote; one that cannot be read stays pending."""
    try:
        row = json.loads(text)
        return MirrorEntry(**row | {"steps": tuple(step_from_json(step) for step in row["steps"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        return MirrorEntry(id=key, fault="", subject=key, steps=(), state=UNREADABLE, did=said)


def entries_of(found: JsonObject) -> list[MirrorEntry]:
    """Return the entries of a mirror, in the order of arming."""
    data = found.get("data") or {}
    entries = [entry_from_text(key, text) for key, text in data.items() if key != FIRED_KEY]
    return sorted(entries, key=lambda entry: entry.t_armed_ns)


def fired_reason(found: JsonObject) -> str:
    """Return when and why the dead-man fired; empty: it has not."""
    return str((found.get("data") or {}).get(FIRED_KEY, ""))


def read_mirror(place: Place, api: Api) -> JsonObject | None:
    """Return the mirror; None: there is none, or no more.

    Raises:
        TargetError: the API server does not say.
    """
    status, found = api.ask("GET", place.mirror)
    if status == NOT_FOUND:
        return None
    if status != OK:
        raise TargetError(f"{place.mirror}: the API server says {status}: {found.get('message')}")
    return found


def write_armed(place: Place, api: Api, entry: MirrorEntry) -> None:
    """Put an entry into the mirror, unless the dead-man has fired.

    Raises:
        MirrorClosed: it has, or there is no mirror; nothing may be injected.
        TargetError: it could not be written.
    """

    def added(found: JsonObject) -> Mapping[str, str]:
        if reason := fired_reason(found):
            raise MirrorClosed(f"the dead-man in the cluster has taken over: {reason}; nothing is injected")
        return {entry.id: entry.to_text()}

    _write(place, api, added)


def write_fired(place: Place, api: Api, reason: str) -> None:
    """Say that the dead-man takes over."""
    _write(place, api, lambda found: {} if fired_reason(found) else {FIRED_KEY: reason})


def write_outcome(place: Place, api: Api, entry: MirrorEntry) -> None:
    """Note what came of an entry; what was undone stays so, by whom it was."""

    def noted(found: JsonObject) -> Mapping[str, str]:
        text = (found.get("data") or {}).get(entry.id)
        if text is None or not (old := entry_from_text(entry.id, text)).is_pending:
            return {}
        return {entry.id: replace(entry, t_armed_ns=old.t_armed_ns).to_text()}

    _write(place, api, noted)


def _write(place: Place, api: Api, change: Callable[[JsonObject], Mapping[str, str]]) -> None:
    for _ in range(_TRIES_MAX):
        found = read_mirror(place, api)
        if found is None:
            raise MirrorClosed(f"{place.mirror}: there is no mirror of the ledger (any more)")
        if not (data := change(found)):
            return
        meta = {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
        status, answer = api.ask("PATCH", place.mirror, {"metadata": meta, "data": dict(data)})
        if status == OK:
            return
        if status not in (CONFLICT, NOT_FOUND):
            raise TargetError(f"{place.mirror}: the API server says {status}: {answer.get('message')}")
    raise TargetError(f"{place.mirror}: changed by somebody else each of {_TRIES_MAX} times")


def undo_entry(entry: MirrorEntry, api: Api, *, by: str, may_delete: bool = True) -> tuple[MirrorEntry, bool]:
    """Carry out the steps of an entry, the last one first; return what to note, and whether we had to act.

    Who has no right to delete leaves what we have made, which does nothing without the rest.

    Raises:
        TargetError: nobody can read what its steps are.
    """
    if entry.state == UNREADABLE:
        raise TargetError(
            f"{entry.id}: cannot be read in the mirror, so nobody knows what to undo: {entry.did}"
        )
    done: list[StepDone] = []
    errors: list[str] = []
    for step in reversed(entry.steps):
        if step.made is not None and not may_delete:
            done.append(StepDone(has_acted=False, did=f"{step.subject} is left, about nothing any more"))
            continue
        try:
            done.append(carry_out(step, api))
        except TargetError as error:  # the other steps are tried all the same
            errors.append(str(error))
    said = "; ".join([*errors, *(each.did for each in done)]) or "nothing to undo"
    state = UNDO_FAILED if errors else UNDONE
    noted = replace(entry, state=state, by=by, did=said, t_ns=time.time_ns())
    return noted, any(each.has_acted for each in done)

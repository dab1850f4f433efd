"""How a change of ours to a Kubernetes object is taken back, as data: the same steps for us and the dead-man.

A step names one object for good, by path and uid, and for each field that we change what it was before and
what we make of it. Carrying it out reads the object and puts back what still is as we made it, in one patch
that the server refuses where the object has changed since it was read. What is another object by now, or what
somebody else has set meanwhile, is left alone. Twice does no harm. An object that we make, by a name that is
ours alone, is deleted; one that we delete is given back what it then lacks, once somebody has made it anew.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from probes.errors import TargetError
from probes.json_types import JsonObject

MERGE_PATCH = "application/merge-patch+json"
OK, NOT_FOUND, CONFLICT = 200, 404, 409
_DONE = (OK, 201, 202)
MARK = "overproof.dev/"  # begins the annotation that marks a change of ours
_TRIES_MAX = 8  # each lost to somebody else's change of the same object
_SAID_MAX = 300

Field = str | dict[str, Any]  # a key of an object, or what tells one item of a list: {"name": "server"}


class Api(Protocol):
    """The API server, as far as undoing needs it."""

    def ask(self, method: str, path: str, body: JsonObject | None = None) -> tuple[int, JsonObject]:
        """Send a request, a PATCH as a merge patch; return status and answer, whatever the status is.

        Raises:
            TargetError: there was no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What we make of one field, or of one item of a list. None is: it is not there."""

    path: tuple[Field, ...]  # as ("spec", "taints", {"key": "gameday", "effect": "NoSchedule"})
    before: Any
    ours: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoStep:
    """What to put back at one object."""

    subject: str  # for people: node/gpu-1
    path: str  # of the API: /api/v1/nodes/gpu-1
    uid: str  # of this very object; another one by the same name is not ours
    changes: tuple[Change, ...]
    # What says on the object that the change is ours, made with it: where it is no longer there, somebody has
    # taken the object over, and all of it is left alone. None: the values alone tell.
    mark: Change | None = None
    # What is created there, by a name that nobody else has. It does nothing once the other steps are undone.
    made: JsonObject | None = None
    # By us: the changes are what it lacks once somebody has made it anew; one whose two values are the same
    # tells that it is this very one. The mark says that it has it back, whatever becomes of that later.
    is_deleted: bool = False

    def to_json(self) -> JsonObject:
        """Return it as plain JSON, for ledger and mirror."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """What came of one step."""

    has_acted: bool
    did: str


def step_from_json(row: JsonObject) -> UndoStep:
    """Return the step that ``to_json`` wrote."""
    mark = row.get("mark")
    return UndoStep(
        subject=row["subject"],
        path=row["path"],
        uid=row["uid"],
        changes=tuple(_change(each) for each in row["changes"]),
        mark=None if mark is None else _change(mark),
        made=row.get("made"),
        is_deleted=row.get("is_deleted", False),
    )


def _change(row: JsonObject) -> Change:
    return Change(path=tuple(row["path"]), before=row["before"], ours=row["ours"])


def make_step(
    found: JsonObject, *, subject: str, path: str, ours: Sequence[tuple[tuple[Field, ...], Any]], mark: str
) -> UndoStep:
    """Return the step that takes back what we are about to make of an object, as it was found.

    A field that has our value already, such as the cordon of somebody else, is none of ours: it is left out.
    ``mark``, unique to this change, is put on the object with it, as the name of an annotation.
    """
    changes = [Change(path=where, before=value_at(found, where), ours=value) for where, value in ours]
    at = ("metadata", "annotations", f"{MARK}{mark}")
    return UndoStep(
        subject=subject,
        path=path,
        uid=found["metadata"]["uid"],
        changes=tuple(each for each in changes if not _same(each.before, each.ours)),
        mark=Change(path=at, before=None, ours="changed by a game day"),
    )


def carry_out(step: UndoStep, api: Api) -> StepDone:
    """Put back what still is as we made it.

    Raises:
        TargetError: it could not be seen or put back; to be tried again.
    """
    if step.made is not None:
        return _unmake(step, api)
    if step.is_deleted:
        return _give_back(step, api)
    return _turn(step, api, backwards=True)


def _unmake(step: UndoStep, api: Api) -> StepDone:
    """Delete what we have made; its name says that it is ours."""
    status, answer = api.ask("DELETE", step.path)
    if status == NOT_FOUND:
        return StepDone(has_acted=False, did=f"{step.subject} is not there")
    if status not in _DONE:
        raise TargetError(refusal(step, "DELETE", status, answer))
    return StepDone(has_acted=True, did=f"{step.subject} deleted")


def _give_back(step: UndoStep, api: Api) -> StepDone:
    """Give what was made anew in the place of an object that we have deleted what it lacks."""
    status, found = api.ask("GET", step.path)
    if status == NOT_FOUND:
        raise TargetError(f"{step.subject}: is not there again yet; is tried again")
    if status != OK:
        raise TargetError(refusal(step, "GET", status, found))
    if found["metadata"]["uid"] == step.uid:
        return StepDone(has_acted=False, did=f"{step.subject} was not deleted")
    if other := [
        c for c in step.changes if c.before == c.ours and not _same(value_at(found, c.path), c.ours)
    ]:
        said = ", ".join(f"{_name(c.path)} is {_text(value_at(found, c.path))}" for c in other)
        return StepDone(has_acted=False, did=f"{step.subject} is another one by now, {said}: left alone")
    return _turn(replace(step, uid=found["metadata"]["uid"]), api, backwards=True)


def make_change(step: UndoStep, api: Api) -> StepDone:
    """Make the change that the step takes back, where the object still is as it was found.

    Raises:
        TargetError: it is not, or it could not be done; what of it was done, the step takes back.
    """
    if step.made is not None:
        return _ask(step, api, "POST", step.path.rpartition("/")[0], step.made, did="made")
    if step.is_deleted:
        return _ask(step, api, "DELETE", step.path, {"preconditions": {"uid": step.uid}}, did="deleted")
    return _turn(step, api, backwards=False)


def _ask(step: UndoStep, api: Api, method: str, path: str, body: JsonObject, *, did: str) -> StepDone:
    status, answer = api.ask(method, path, body)
    if status not in _DONE:
        raise TargetError(refusal(step, method, status, answer))
    return StepDone(has_acted=True, did=f"{step.subject} {did}")


def prove(step: UndoStep, api: Api) -> str:
    """Say why the step could not be carried out by whoever asks here; empty: it could be, or need not.

    The server is asked for a patch that changes nothing, as a dry run: permission and admission count.
    """
    if step.made is not None:
        return ""
    try:
        found = read(step, api)
        if found is None:
            return ""
        body = {"metadata": {"uid": found["metadata"]["uid"]}}
        status, answer = api.ask("PATCH", f"{step.path}?dryRun=All", body)
    except TargetError as error:
        return str(error)
    return "" if status in (OK, CONFLICT) else refusal(step, "PATCH", status, answer)


def read(step: UndoStep, api: Api) -> JsonObject | None:
    """Return the object of a step; None: this very one is gone.

    Raises:
        TargetError: the server does not say.
    """
    status, found = api.ask("GET", step.path)
    if status == NOT_FOUND:
        return None
    if status != OK:
        raise TargetError(refusal(step, "GET", status, found))
    return found if found["metadata"]["uid"] == step.uid else None


def is_ours(step: UndoStep, found: JsonObject) -> bool:
    """Say whether an object still bears our mark; without one, the values have to tell."""
    return step.mark is None or _same(value_at(found, step.mark.path), step.mark.ours)


def _turn(step: UndoStep, api: Api, *, backwards: bool) -> StepDone:
    for _ in range(_TRIES_MAX):
        found = read(step, api)
        if found is None:
            return _nothing(f"{step.subject} is gone, and our change with it", backwards)
        if backwards and not is_ours(step, found):
            return _nothing(f"{step.subject} does not bear our mark (any more): left alone", backwards)
        todo, left = _to_turn(step, found, backwards=backwards)
        if left and not backwards:
            raise TargetError(f"{step.subject}: is not as it was found: {'; '.join(left)}; it is left alone")
        if not todo:
            said = "; ".join(left) or "is as it was"
            return _nothing(f"{step.subject}: {said}: nothing to do", backwards=True)
        status, answer = api.ask("PATCH", step.path, _patch(found, todo))
        if status in (CONFLICT, NOT_FOUND):
            continue  # somebody was quicker: look again
        if status != OK:
            raise TargetError(refusal(step, "PATCH", status, answer))
        return StepDone(has_acted=True, did=_said(step, todo, left))
    raise TargetError(f"{step.subject}: changed by somebody else each of {_TRIES_MAX} times; is tried again")


def _nothing(said: str, backwards: bool) -> StepDone:
    if not backwards:
        raise TargetError(f"{said}; nothing is changed")
    return StepDone(has_acted=False, did=said)


def _to_turn(
    step: UndoStep, found: JsonObject, *, backwards: bool
) -> tuple[list[tuple[tuple[Field, ...], Any]], list[str]]:
    """Return what to set, and what is neither as it was nor as we make it."""
    todo: list[tuple[tuple[Field, ...], Any]] = []
    left: list[str] = []
    for change in (*step.changes, *([] if step.mark is None else [step.mark])):
        now = value_at(found, change.path)
        expected, wanted = (change.ours, change.before) if backwards else (change.before, change.ours)
        if _same(now, wanted):
            continue
        if _same(now, expected):
            todo.append((change.path, wanted))
        else:
            left.append(f"{_name(change.path)} is {_text(now)} by now, somebody else's")
    return todo, left


def _patch(found: JsonObject, todo: Sequence[tuple[tuple[Field, ...], Any]]) -> JsonObject:
    """Return the merge patch; lists go as a whole, which the version read makes safe."""
    meta = found["metadata"]
    after = deepcopy(found)
    for path, value in todo:
        _set(after, path, value)
    patch: JsonObject = {}
    for path, _ in todo:
        keys = [*_keys(path)]
        target, source = patch, after
        for key in keys[:-1]:
            target, source = target.setdefault(key, {}), source.get(key) or {}
        target[keys[-1]] = source.get(keys[-1])
    patch.setdefault("metadata", {}).update({"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]})
    return patch


def _keys(path: Sequence[Field]) -> list[str]:
    """Return the path as far as the first list."""
    keys: list[str] = []
    for each in path:
        if not isinstance(each, str):
            break
        keys.append(each)
    return keys


def value_at(found: Any, path: Sequence[Field]) -> Any:
    """Return what is there; None: nothing is."""
    for each in path:
        if isinstance(each, str):
            found = found.get(each) if isinstance(found, dict) else None
        else:
            found = next((item for item in found or () if each.items() <= item.items()), None)
    return found


def _set(found: Any, path: Sequence[Field], value: Any) -> None:
    """Set, or by None remove, what a path names; what leads there is made where it is missing."""
    first, rest = path[0], path[1:]
    if isinstance(first, dict):
        at = next((n for n, item in enumerate(found) if first.items() <= item.items()), len(found))
        if not rest:
            found[at : at + 1] = [] if value is None else [value]
        elif at < len(found):
            _set(found[at], rest, value)
    elif not rest:
        found.pop(first, None)
        if value is not None:
            found[first] = value
    else:
        if found.get(first) is None:
            found[first] = [] if isinstance(rest[0], dict) else {}
        _set(found[first], rest, value)


def _same(one: Any, other: Any) -> bool:
    """Say whether two values are one to the API, which leaves false out."""
    return (None if one is False else one) == (None if other is False else other)


def _said(step: UndoStep, todo: Sequence[tuple[tuple[Field, ...], Any]], left: Sequence[str]) -> str:
    mark = None if step.mark is None else step.mark.path
    set_ = [f"{_name(path)} set to {_text(value)}" for path, value in todo if path != mark]
    return f"{step.subject}: {'; '.join([*set_, *left]) or 'our mark, nothing else'}"


def _name(path: Sequence[Field]) -> str:
    return ".".join(each if isinstance(each, str) else "/".join(map(str, each.values())) for each in path)


def _text(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)[:_SAID_MAX]


def refusal(step: UndoStep, method: str, status: int, answer: JsonObject) -> str:
    """Say in one line what the server did not do."""
    said = str(answer.get("message", ""))[:_SAID_MAX]
    return f"{step.subject}: {method} {step.path}: the API server says {status}: {said}"

"""An API server in memory: objects by path, versions, merge patches. The real one: tests/cluster."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from probes.errors import TargetError
from probes.json_types import JsonObject


def node(name: str, *, uid: str = "uid-1") -> JsonObject:
    meta = {"name": name, "uid": uid, "resourceVersion": "1", "labels": {"zone": "a"}}
    return {"metadata": meta, "spec": {}}


class FakeApi:
    """Refuses a patch or deletion whose uid or version is not the object's, as the real one does."""

    def __init__(self, objects: dict[str, JsonObject] | None = None) -> None:
        self.objects = objects or {}
        self.patches = 0
        self.refusals: dict[str, int] = {}
        self.is_away = False
        self.forbidden: set[str] = set()  # paths that may be read and not patched
        self.changes_before_patch: list[Callable[[JsonObject], Any]] = []

    def content(self, path: str) -> JsonObject:
        """Return an object without its version; empty maps are not there."""
        found = deepcopy(self.objects[path])
        del found["metadata"]["resourceVersion"]
        if not found["metadata"].get("annotations"):
            found["metadata"].pop("annotations", None)
        return found

    def ask(self, method: str, path: str, body: JsonObject | None = None) -> tuple[int, JsonObject]:
        if self.is_away:
            raise TargetError("no answer")
        if method in self.refusals:
            return self.refusals[method], {"message": "refused"}
        plain, _, query = path.partition("?")
        if method == "POST":
            assert body is not None
            return self._create(f"{plain}/{body['metadata']['name']}", body)
        if method == "PATCH" and plain in self.forbidden:
            return 403, {"message": "forbidden"}
        if plain not in self.objects:
            return 404, {"message": "not found"}
        if method == "DELETE":
            wanted = (body or {}).get("preconditions") or {}
            if wanted.get("uid") not in (None, self.objects[plain]["metadata"]["uid"]):
                return 409, {"message": "another one"}
            del self.objects[plain]
            return 200, {}
        if method == "PATCH":
            return self._patch(plain, body or {}, is_dry="dryRun=All" in query)
        return 200, deepcopy(self.objects[plain])

    def _create(self, path: str, body: JsonObject) -> tuple[int, JsonObject]:
        if path in self.objects:
            return 409, {"message": "exists"}
        made = deepcopy(body)
        made["metadata"] |= {"uid": f"uid-{len(self.objects)}", "resourceVersion": "1"}
        self.objects[path] = made
        return 201, deepcopy(made)

    def _patch(self, path: str, body: JsonObject, *, is_dry: bool) -> tuple[int, JsonObject]:
        if self.changes_before_patch:
            change = self.changes_before_patch.pop(0)
            version = self.objects[path]["metadata"]["resourceVersion"]
            change(self.objects[path])
            self.objects[path]["metadata"]["resourceVersion"] = version + "x"
        found = self.objects[path]
        meta = body.get("metadata", {})
        for key in ("uid", "resourceVersion"):
            if key in meta and meta[key] != found["metadata"][key]:
                return 409, {"message": "changed"}
        if is_dry:
            return 200, deepcopy(found)
        self.patches += 1
        _merge(found, body)
        found["metadata"]["resourceVersion"] = str(self.patches + 100)
        return 200, deepcopy(found)


def _merge(target: JsonObject, patch: JsonObject) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value

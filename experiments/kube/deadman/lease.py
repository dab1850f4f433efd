"""A Lease: that its holder lives, said again and again; who watches it counts by his own clock.

This file travels into the cluster: standard library only.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass

from experiments.kube.undoing.steps import NOT_FOUND, OK, Api
from probes.errors import TargetError
from probes.json_types import JsonObject

LEASE_S = 20  # silence after which the dead-man takes over
RENEW_EVERY_S = 3.0
INJECT_WITHIN_S = 10.0  # one call may take this long: it has to be over before the dead-man takes over
SEES, CANNOT, NONCE = "overproof.dev/sees", "overproof.dev/cannot", "overproof.dev/nonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What the dead-man says of itself."""

    holder: str
    nonce: str
    sees: frozenset[str]  # ids of the entries that it has read in the mirror and could undo
    cannot: dict[str, str]  # and why it could not undo others


def now_text() -> str:
    """Return the time of day as the API writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def age_s(found: JsonObject, now: datetime.datetime) -> float:
    """Return how long ago a lease was renewed, where holder and asker have the same clock."""
    text = str(found["spec"]["renewTime"]).replace("Z", "+00:00")
    return (now - datetime.datetime.fromisoformat(text)).total_seconds()


def read_lease(path: str, api: Api) -> JsonObject | None:
    """Return a lease; None: there is none.

    Raises:
        TargetError: the API server does not say.
    """
    status, found = api.ask("GET", path)
    if status == NOT_FOUND:
        return None
    if status != OK:
        raise TargetError(f"{path}: the API server says {status}: {found.get('message')}")
    return found


def renew(path: str, api: Api, holder: str, annotations: dict[str, str] | None = None) -> None:
    """Say that its holder lives.

    Raises:
        TargetError: the API server did not take it.
    """
    body: JsonObject = {"spec": {"holderIdentity": holder, "renewTime": now_text()}}
    if annotations is not None:
        body["metadata"] = {"annotations": annotations}
    status, answer = api.ask("PATCH", path, body)
    if status != OK:
        raise TargetError(f"{path}: the API server says {status}: {answer.get('message')}")


def beat_of(found: JsonObject) -> Beat:
    """Return what the dead-man wrote into its lease."""
    said = found["metadata"].get("annotations") or {}
    return Beat(
        holder=str(found["spec"].get("holderIdentity") or ""),
        nonce=said.get(NONCE, ""),
        sees=frozenset(json.loads(said.get(SEES, "[]"))),
        cannot=json.loads(said.get(CANNOT, "{}")),
    )


def beat_words(nonce: str, sees: set[str], cannot: dict[str, str]) -> dict[str, str]:
    """Return the annotations that ``beat_of`` reads."""
    return {NONCE: nonce, SEES: json.dumps(sorted(sees)), CANNOT: json.dumps(cannot)}


class Silence:
    """For how long a lease has not been renewed, as far as somebody could look.

    While the API server is away nobody can renew: the time around a look that failed does not count. One that
    took long does, however slow this process or the server is.
    """

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._said: object = None
        self._looked_at_s: float | None = None
        self.lasted_s = 0.0

    def look(self, found: JsonObject | None) -> None:
        """Count a look that succeeded; None: there is no lease."""
        now_s = self._clock_s()
        said = None if found is None else (found["metadata"]["uid"], found["spec"].get("renewTime"))
        if said is not None and said != self._said:
            self.lasted_s = 0.0
        elif self._looked_at_s is not None:
            self.lasted_s += now_s - self._looked_at_s
        self._said, self._looked_at_s = said, now_s

    def miss(self) -> None:
        """Note a look that failed."""
        self._looked_at_s = None

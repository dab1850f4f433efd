"""Trouble at the gateway on purpose: what the network in front of a service can do to its answers.

It ends by itself after ``for_s``: a controller that dies cannot leave it behind for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

from probes.json_types import JsonObject

KINDS = {
    "latency": "each request waits before it is sent on",
    "reset": "the connection is reset in the middle of the answer",
    "black-hole": "the request is taken and nothing ever comes back",
    "error": "the gateway answers with an HTTP error of its own",
}
FOR_S_MAX = 3600.0


class Reset(Exception):
    """The client's connection is to be reset now."""


@dataclass(slots=True, kw_only=True)
class Trouble:
    """One kind of trouble, and how many requests it has met so far."""

    kind: str
    ends_at: float  # of the event loop's clock
    share: float = 1.0  # of the requests
    latency_s: float = 0.0
    status: int = 503
    after_events: int = 3  # pieces of the answer that come before the reset
    seed: int = 1
    hits: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)  # taken back before its time
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def meets_next(self) -> bool:
        """Draw whether the next request is met, and count it if so."""
        is_met = self._draw.random() < self.share
        self.hits += is_met
        return is_met

    def to_json(self) -> JsonObject:
        """Return what the lab's status says of it."""
        return {"kind": self.kind, "share": self.share, "hits": self.hits, "latency_s": self.latency_s} | {
            "status": self.status,
            "after_events": self.after_events,
        }

    async def swallow(self) -> None:
        """Give no answer as long as the trouble lasts."""
        with contextlib.suppress(TimeoutError):
            left_s = max(0.0, self.ends_at - asyncio.get_running_loop().time())
            await asyncio.wait_for(self.over.wait(), left_s)


def trouble_from_json(row: JsonObject) -> Trouble:
    """Read a request for trouble; its clock begins now.

    Raises:
        ValueError: it makes no sense; the message says why.
    """
    kind, for_s, share = str(row.get("kind")), float(row.get("for_s", 0)), float(row.get("share", 1))
    if kind not in KINDS:
        raise ValueError(f"trouble {kind!r} is unknown; one of {', '.join(KINDS)}")
    if not 0 < for_s <= FOR_S_MAX or not 0 < share <= 1:
        raise ValueError(f"wanted 0 < for_s <= {FOR_S_MAX:g} and 0 < share <= 1, got {for_s:g} and {share:g}")
    return Trouble(
        kind=kind,
        ends_at=asyncio.get_running_loop().time() + for_s,
        share=share,
        latency_s=float(row.get("latency_s", 0)),
        status=int(row.get("status", 503)),
        after_events=int(row.get("after_events", 3)),
        seed=int(row.get("seed", 1)),
    )

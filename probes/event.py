"""What happened, when, where: the lines that processes write for the record.

A *reading* (a value taken from the world, with time, source and unit) is an event of kind ``sample``; the
record keeps those in ``series/<source>``, everything else on the one timeline ``events.ndjson``.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field

from probes.json_types import JsonObject

SAMPLE = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the timeline. ``t_ns`` is CLOCK_REALTIME of ``host``, in nanoseconds."""

    t_ns: int
    host: str
    source: str  # who says so: "agent", "nvml", "chaos", "controller", "load", …
    kind: str  # dotted: "stage.started", "fault.verified", "sample"
    data: JsonObject = field(default_factory=dict)


def now(source: str, kind: str, **data: object) -> Event:
    """Return an event of this host and this moment."""
    return Event(t_ns=time.time_ns(), host=os.uname().nodename, source=source, kind=kind, data=data)


def event_to_line(event: Event) -> str:
    """Return the event as one line of JSON with its newline. NaN becomes the string "nan": JSON has no word for it."""
    fields = {"t_ns": event.t_ns, "host": event.host, "source": event.source, "kind": event.kind}
    return to_json_line(fields | {"data": event.data})


def event_from_line(line: str) -> Event:
    """Read an event back.

    Raises:
        ValueError: the line is torn or is not an event.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict) or not {"t_ns", "host", "source", "kind"} <= fields.keys():
        raise ValueError(f"not an event: {line[:200]!r}")
    return Event(
        t_ns=int(fields["t_ns"]),
        host=str(fields["host"]),
        source=str(fields["source"]),
        kind=str(fields["kind"]),
        data=dict(fields.get("data") or {}),
    )


def to_json_line(value: object) -> str:
    """Return compact JSON plus newline; NaN and infinities, which JSON lacks, become strings."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str) + "\n"
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=str) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

"""What happened, when, where: the lines that processes write for the record.

A *reading* (a value taken from the world, with time, source and unit) is an event of kind ``sample``; the
record keeps those in ``series/<source>``, everything else on the one timeline ``events.ndjson``.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field

from probes.json_types import JsonObject

SAMPLE = "sample"
_SURROGATE = re.compile("[\ud800-\udfff]")


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
    """Return the event as one line of JSON with its newline; NaN becomes the string "nan"."""
    fields = {"t_ns": event.t_ns, "host": event.host, "source": event.source, "kind": event.kind}
    return to_json_line(fields | {"data": event.data})


def event_from_line(line: str) -> Event:
    """Read an event back.

    Raises:
        ValueError: the line is torn or is not an event.
    """
    return event_from_json(json.loads(line))


def event_from_json(fields: object) -> Event:
    """Read an event back from its JSON values.

    Raises:
        ValueError: they are not an event.
    """
    if not isinstance(fields, dict) or not {"t_ns", "host", "source", "kind"} <= fields.keys():
        raise ValueError(f"not an event: {fields!r:.200}")
    t_ns, data = fields["t_ns"], fields.get("data") or {}
    if not isinstance(t_ns, int) or not isinstance(data, dict):
        raise ValueError(f"not an event: {fields!r:.200}")
    return Event(
        t_ns=t_ns,
        host=str(fields["host"]),
        source=str(fields["source"]),
        kind=str(fields["kind"]),
        data=data,
    )


def to_json_line(value: object) -> str:
    """Return compact JSON plus newline; NaN and infinities, which JSON lacks, become strings.

    Half a surrogate pair, as from a file name that is not UTF-8, becomes the replacement character: no file
    and no table could take it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=str)
    return (text if text.isascii() else _SURROGATE.sub("\ufffd", text)) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

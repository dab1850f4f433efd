"""Lines on the timeline of a run, written as they happen by whichever process sees them.

Each is one write to a descriptor opened for appending: threads and processes may write at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from probes.event import Event, event_to_line, now
from reports.record import EVENTS_FILE, open_for_append, write_whole


class Timeline:
    """Appends to ``events.ndjson`` of one folder."""

    def __init__(self, folder: Path, source: str) -> None:
        self._path = folder / EVENTS_FILE
        self._source = source
        self._descriptor = open_for_append(self._path)

    def note(self, kind: str, **data: object) -> Event:
        """Put something that happened just now on the timeline."""
        event = now(self._source, kind, **data)
        self.append(event)
        return event

    def append(self, event: Event) -> None:
        """Put an event, perhaps of a moment ago, on the timeline."""
        write_whole(self._descriptor, event_to_line(event).encode(), self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Timeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""New rows of files that others append to: each row is read once, however long the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

from probes.json_types import JsonObject


class LineTail:
    """Reads the lines of one file bit by bit; one still being written is read once it is whole.

    A file that has become shorter was begun anew, and is read from its start.
    """

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._path = path
        self._offset = offset

    def read(self) -> list[bytes]:
        """Return the lines that came since the last call."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()


class Tail:
    """Reads the rows of one NDJSON file in the same way."""

    def __init__(self, path: Path) -> None:
        self._lines = LineTail(path)

    def read(self) -> list[JsonObject]:
        """Return the rows that came since the last call; a garbled line is passed over."""
        return [row for line in self._lines.read() if isinstance(row := parse_row(line), dict)]


def parse_row(line: bytes) -> object:
    """Return what a line of JSON holds; None: it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None

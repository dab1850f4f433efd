"""New rows of files that others append to: each row is read once, however long the run goes on."""

from __future__ import annotations

import json
from pathlib import Path

from probes.json_types import JsonObject


class Tail:
    """Reads one NDJSON file bit by bit; a line still being written is read once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[JsonObject]:
        """Return the rows that came since the last call; a garbled line is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [row for line in whole.splitlines() if isinstance(row := _parse(line), dict)]


def _parse(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None

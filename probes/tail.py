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
        self.skipped_bytes = 0  # of lines that were never returned

    def read(self, *, bytes_max: int | None = None) -> list[bytes]:
        """Return the lines that came since the last call; of more than ``bytes_max`` the newest only."""
        try:
            with self._path.open("rb") as file:
                length = file.seek(0, 2)
                if length < self._offset:
                    self._offset = 0
                is_behind = bytes_max is not None and length - self._offset > bytes_max
                if bytes_max is not None and is_behind:
                    self.skipped_bytes += length - bytes_max - self._offset
                    self._offset = length - bytes_max
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        if is_behind:  # it begins in the middle of a line
            torn = data.find(b"\n") + 1
            self.skipped_bytes += torn
            self._offset += torn
            data = data[torn:]
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()


class Tail:
    """Reads the rows of one NDJSON file in the same way."""

    def __init__(self, path: Path) -> None:
        self._lines = LineTail(path)

    @property
    def skipped_bytes(self) -> int:
        """How much of the file was left out, so far."""
        return self._lines.skipped_bytes

    def read(self, *, bytes_max: int | None = None) -> list[JsonObject]:
        """Return the rows that came since the last call; a garbled line is passed over."""
        lines = self._lines.read(bytes_max=bytes_max)
        return [row for line in lines if isinstance(row := parse_row(line), dict)]


def parse_row(line: bytes) -> object:
    """Return what a line of JSON holds; None: it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None

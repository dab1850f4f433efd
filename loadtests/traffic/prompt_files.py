"""Prompts and sizes out of files of JSON lines: checked before the load, read line by line during it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path

from probes.errors import ConfigError
from probes.json_types import JsonObject


class PromptFile:
    """A file of prompts; only where each line begins is kept in memory.

    Raises:
        ConfigError: a line holds no prompt.
    """

    def __init__(self, path: Path) -> None:
        self._starts = array("Q", _starts(path))
        if not self._starts:
            raise ConfigError(f"{path}: holds no prompt")
        self._file = path.open("rb")

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, number: int) -> tuple[tuple[JsonObject, ...], int | None]:
        """Return the messages of a prompt, and how long its answer may get where the file says so."""
        self._file.seek(self._starts[number])
        return _parse(json.loads(self._file.readline()))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _starts(path: Path) -> Iterator[int]:
    """Yield where each prompt's line begins, after a look at what it holds."""
    position = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    _checked(path, number, line)
                    yield position
                position += len(line)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def read_pairs(path: Path) -> Iterator[tuple[int, int, float]]:
    """Yield (input tokens, output tokens, weight) of each line.

    Raises:
        ConfigError: a line is none, or there is none.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    sizes = (row["input_tokens"], row["output_tokens"])
                    weight = row.get("weight", 1)
                    if not all(type(size) is int and 0 < size <= 10_000_000 for size in sizes):
                        raise ValueError("token counts are whole numbers from 1 to 10000000")
                    if type(weight) not in (int, float) or not 0 < weight < 1e12:
                        raise ValueError("weight is a number above 0")
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ConfigError(f"{path}:{number}: {_reason(error)}; got {_shown(line)}") from error
                yield *sizes, float(weight)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not number:
        raise ConfigError(f"{path}: is empty")


def _checked(path: Path, number: int, line: bytes) -> None:
    try:
        _parse(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}:{number}: {_reason(error)}; got {_shown(line)}") from error


def _parse(row: JsonObject) -> tuple[tuple[JsonObject, ...], int | None]:
    limit = row.get("output_tokens")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError("output_tokens is a whole number above 0")
    if "messages" not in row:
        if not isinstance(row["prompt"], str) or not row["prompt"]:
            raise ValueError("prompt is a text")
        return ({"role": "user", "content": row["prompt"]},), limit
    messages = row["messages"]
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) and "role" in message for message in messages)
    ):
        raise ValueError("messages is a list of objects with a role")
    return tuple(messages), limit


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace"))

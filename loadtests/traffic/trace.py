"""Recorded traffic, read line by line as the run goes: Azure's LLM inference trace and Mooncake's.

Azure: ``TIMESTAMP,ContextTokens,GeneratedTokens``, local time with up to seven decimals and no zone; only
differences are used. Mooncake: an object per line, milliseconds, and the ids of its blocks of 512 tokens.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from probes.errors import ConfigError

BLOCK_TOKENS = 512
TOKENS_MAX = 10_000_000
_AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"
_AZURE_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d{1,9}))?")
_LINE_CHARS_MAX = 4 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the trace names no zone


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Which part of which file, and how fast."""

    path: Path
    form: str  # azure or mooncake
    speed: float = 1.0
    from_s: float = 0.0  # window in the trace's own time, from its first line
    to_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRow:
    """One recorded request."""

    at_s: float  # from the start of the window, at the speed asked for
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()  # ids of the prompt's blocks; requests with the same ids share a prefix


def read_trace(trace: Trace) -> Iterator[TraceRow]:
    """Yield the requests of the window, in order; one line is in memory at a time.

    Raises:
        ConfigError: a line cannot be read; the message names it.
    """
    first_ns: int | None = None
    before_ns = 0
    for number, line in _lines(trace.path, has_header=trace.form == "azure"):
        try:
            t_ns, input_tokens, output_tokens, blocks = _PARSERS[trace.form](line)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ConfigError(f"{trace.path}:{number}: {reason}; got {line[:80]!r}") from error
        first_ns = t_ns if first_ns is None else first_ns
        if number > 1 and t_ns < before_ns:
            raise ConfigError(f"{trace.path}:{number}: earlier than the line before; sort the trace by time")
        before_ns, at_s = t_ns, (t_ns - first_ns) / 1e9
        if at_s >= trace.to_s:
            return
        if at_s >= trace.from_s:
            yield TraceRow(
                at_s=(at_s - trace.from_s) / trace.speed,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                blocks=blocks,
            )


def _lines(path: Path, *, has_header: bool) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            number = 0
            while line := file.readline(_LINE_CHARS_MAX):
                number += 1
                if len(line) == _LINE_CHARS_MAX:
                    raise ConfigError(f"{path}:{number}: a line of more than {_LINE_CHARS_MAX} characters")
                if number == 1 and has_header:
                    if line.strip() != _AZURE_HEADER:
                        raise ConfigError(f"{path}:1: wanted the header {_AZURE_HEADER}, got {line[:80]!r}")
                elif line.strip():
                    yield number, line.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


_Parsed = tuple[int, int, int, tuple[int, ...]]


def _parse_azure(line: str) -> _Parsed:
    parts = line.split(",")
    match = _AZURE_TIME.fullmatch(parts[0])
    if len(parts) != 3 or match is None:
        raise ValueError("wanted a time such as 2023-11-16 18:15:46.6805900 and two token counts")
    since = datetime.fromisoformat(match[1]) - _EPOCH
    t_ns = (since.days * 86_400 + since.seconds) * 10**9 + int((match[2] or "0").ljust(9, "0"))
    return t_ns, _tokens(int(parts[1])), _tokens(int(parts[2])), ()


def _parse_mooncake(line: str) -> _Parsed:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError("wanted an object")
    blocks, timestamp = row.get("hash_ids", []), row["timestamp"]
    if not isinstance(timestamp, int | float) or not 0 <= timestamp < 1e13:
        raise ValueError(f"timestamp {timestamp!r} is not in milliseconds from the start")
    if not isinstance(blocks, list) or not all(isinstance(block, int) for block in blocks):
        raise ValueError("hash_ids is not a list of whole numbers")
    tokens_in = _tokens(row["input_length"])
    return round(timestamp * 1e6), tokens_in, _tokens(row["output_length"]), tuple(blocks)


def _tokens(value: object) -> int:
    """Return a count; a request without a single token cannot be sent, and is taken as one of one token."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= TOKENS_MAX:
        raise ValueError(f"{value!r} is no count of tokens")
    return max(1, value)


_PARSERS: dict[str, Callable[[str], _Parsed]] = {"azure": _parse_azure, "mooncake": _parse_mooncake}

"""The steps of a training job from its own log: a folder of the lab, NDJSON by keys, text by a pattern."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from probes.spec import Spec
from probes.tail import LineTail, Tail, parse_row
from probes.training_step import Step, step_from_json

PROGRESS_FOLDER = "progress"
LAST_BYTES = 1 << 26  # of a log that was there before us, as much as is read
# What a log may say of a step; a time in milliseconds is named ``…_ms``.
_SECONDS = ("compute_s", "sync_s", "data_wait_s", "checkpoint_s")
FIELDS = ("step", "time", "rank", "world", "restart", "loss", "checkpoint_step", *_SECONDS)
NAMES = (*FIELDS, *(name.removesuffix("_s") + "_ms" for name in _SECONDS))
# Below each bound a number of seconds, milliseconds, microseconds since 1970 is that; above, nanoseconds.
_NS_MIN = 1e17
_NS_PER = ((1e11, 1_000_000_000), (1e14, 1_000_000), (_NS_MIN, 1_000), (float("inf"), 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLog:
    """Where a job's steps are, and how they are written."""

    path: Path
    keys: Mapping[str, str]  # our name -> the key of an NDJSON row, with dots for what lies deeper
    pattern: re.Pattern[str] | None  # of a text line, with our names as groups; None: NDJSON


class JobLogSpec(Spec):
    """A log of the user's own job."""

    log: str = Field(description="File that the job appends to, as seen from here.")
    keys: dict[str, str] = Field(
        default_factory=dict,
        description="Of a log of JSON lines: our name of a figure and the log's key, as step: iteration.",
    )
    pattern: str = Field(
        default="",
        description="Of a text log: regular expression of a step's line, with our names as (?P<step>…).",
    )

    @field_validator("keys")
    @classmethod
    def _are_names(cls, keys: dict[str, str]) -> dict[str, str]:
        _check_names(keys)
        return keys

    @field_validator("pattern")
    @classmethod
    def _names_a_step(cls, pattern: str) -> str:
        try:
            names = re.compile(pattern).groupindex if pattern else {}
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        _check_names(names)
        if pattern and "step" not in names:
            raise ValueError("has no group (?P<step>…)")
        return pattern

    def to_job_log(self, folder: Path) -> JobLog:
        """Return the log; its path counts from ``folder``."""
        path = folder / self.log
        keys = {} if self.pattern else {name: name for name in NAMES} | self.keys
        return JobLog(path=path, keys=keys, pattern=re.compile(self.pattern) if self.pattern else None)


def _check_names(names: Mapping[str, object]) -> None:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: known are {', '.join(NAMES)}")


def job_log_of(given: str | JsonObject) -> JobLog:
    """Return the log that a probe was given: a folder or file, or the keys of ``JobLogSpec``.

    Raises:
        ConfigError: it is neither.
    """
    document = {"log": given} if isinstance(given, str) else given
    try:
        return JobLogSpec.model_validate(document).to_job_log(Path())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"job: {where}: {first['msg']}; got {first['input']!r:.200}") from error


class JobReader:
    """Reads the steps of one job, each once.

    Lines that name no time are taken for evenly spread over the time since the last look; of those that were
    there before us nobody knows, and they are passed over.
    """

    def __init__(self, log: JobLog) -> None:
        self.log = log
        self.has_times = log.pattern is None or "time" in log.pattern.groupindex
        self._tails: dict[Path, Tail] = {}
        self._lines = None if log.path.is_dir() else LineTail(log.path, offset=_offset(log.path))
        self._looked_ns: int | None = None  # None: not yet

    def read(self) -> list[Step]:
        """Return the steps that came since the last call.

        Raises:
            TargetError: there is no such log.
        """
        if not self.log.path.exists():
            raise TargetError(f"training job: {self.log.path} is not there")
        if self._lines is None:
            return [step for row in self._rows() if (step := step_from_json(row)) is not None]
        rows = [row for line in self._lines.read() if (row := _parse(self.log, line)) and "step" in row]
        timeless = [row for row in rows if "time" not in row]
        self.has_times = self.has_times and not timeless
        now_ns, before_ns = time.time_ns(), self._looked_ns
        self._looked_ns = now_ns
        spread = [
            None if before_ns is None else before_ns + (now_ns - before_ns) * (i + 1) // len(rows)
            for i in range(len(rows))
        ]
        steps = (_step(row, t_ns) for row, t_ns in zip(rows, spread, strict=True))
        return [step for step in steps if step is not None]

    def _rows(self) -> Iterator[JsonObject]:
        for path in sorted((self.log.path / PROGRESS_FOLDER).glob("*.ndjson")):
            yield from self._tails.setdefault(path, Tail(path)).read()


def _offset(path: Path) -> int:
    """Return where to begin in a log that may have grown for weeks."""
    try:
        return max(0, path.stat().st_size - LAST_BYTES)
    except OSError:
        return 0


def _parse(log: JobLog, line: bytes) -> JsonObject | None:
    """Return what a line says, by our names; None: it is none of a step."""
    if log.pattern is not None:
        match = log.pattern.search(line.decode(errors="replace"))
        return None if match is None else {k: v for k, v in match.groupdict().items() if v is not None}
    row = parse_row(line)
    if not isinstance(row, dict):
        return None
    return {name: value for name, key in log.keys.items() if (value := _inside(row, key)) is not None}


def _inside(row: JsonObject, key: str) -> object:
    if key in row:
        return row[key]
    found: object = row
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _step(row: JsonObject, now_ns: int | None) -> Step | None:
    """Read one row by our names, whose values may be text; None: it cannot be read, or has no time at all."""
    t_ns = _moment(row["time"]) if "time" in row else now_ns
    known: JsonObject = {"t_ns": t_ns}
    for name, value in row.items():
        number = _number(value)
        if number is None or name == "time":
            continue
        if name.endswith("_ms"):
            known[name.removesuffix("_ms") + "_s"] = number / 1000
        else:
            known[name] = number if name in (*_SECONDS, "loss") else int(number)
    return step_from_json(known)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 1e19 else None  # neither inf nor nan, and an int after all


def _moment(value: object) -> int | None:
    """Return a time in ns; None: it is none. One without a time zone is of ours."""
    number = _number(value)
    if isinstance(value, int) and value >= _NS_MIN:
        return value  # which a float would not hold to the nanosecond
    if number is not None:
        return next(round(number * ns) for bound, ns in _NS_PER if number < bound)
    try:
        return round(datetime.datetime.fromisoformat(str(value).replace(",", ".")).timestamp() * 1e9)
    except ValueError:
        return None

"""The run record: a folder that is the only bus between processes and all that a report needs.

Processes append and nobody rewrites another's file. Each line is one ``write`` to a descriptor opened for
appending, so after kill -9 at any moment every line that was written is whole and stays.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from probes.child import process_start_time
from probes.errors import ConfigError, RecordError
from probes.event import Event, event_to_line, now, to_json_line
from probes.finding import Finding, finding_to_json
from probes.json_types import JsonObject
from reports.versions import installed_versions

# History of the record's form.
# 1 (2026-11-21): first form.
SCHEMA_VERSION = 1

RUN_FILE = "run.json"
EVENTS_FILE = "events.ndjson"
FINDINGS_FILE = "findings.ndjson"
UNDO_FILE = "undo.ndjson"
SERIES_FOLDER = "series"
REQUESTS_FOLDER = "requests"
RESERVE_FILE = ".reserve"
# Given back when the disk is full, so that the finding that says so still fits.
RESERVE_BYTES = 256 * 1024
_ID_ATTEMPTS_MAX = 20
_SECRET_WORDS = ("password", "secret", "api_key", "apikey", "authorization", "credential")
_PACKAGES = ("locust", "chaostoolkit-lib", "torch", "nvidia-ml-py", "paramiko", "duckdb")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What ``run.json`` holds: written once, at the start."""

    id: str
    kind: str  # "burnin", "fleet", "load" or "gameday"
    started_ns: int
    seed: int
    spec: JsonObject
    command: list[str]
    host: str
    pid: int
    pid_start_time: int | None  # clock ticks since boot; with the pid it names the process for good
    versions: dict[str, str]
    clock_offset_s: dict[str, float]  # host -> its clock minus ours, measured at connection
    schema_version: int = SCHEMA_VERSION


class RunWriter:
    """Appends to the record of a run that this process owns."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        self.path = path
        self.header = header
        self._files: dict[str, int] = {}

    def event(self, source: str, kind: str, **data: object) -> Event:
        """Put something that happened just now on the timeline."""
        event = now(source, kind, **data)
        self.append_event(event)
        return event

    def append_event(self, event: Event) -> None:
        """Put an event, perhaps of another host, on the timeline."""
        self.append_line(EVENTS_FILE, event_to_line(event))

    def sample(self, series: str, row: JsonObject) -> None:
        """Append one row to ``series/<series>.ndjson``; ``seal`` turns it into Parquet."""
        self.append_line(f"{SERIES_FOLDER}/{series}.ndjson", to_json_line(row))

    def append_line(self, name: str, line: str) -> None:
        """Append one whole line to a file of the record.

        Raises:
            RecordError: the disk is full or the folder is gone.
        """
        if name not in self._files:
            self._files[name] = open_for_append(self.path / name)
        write_whole(self._files[name], line.encode(), self.path / name)

    def write_findings(self, findings: list[Finding]) -> None:
        """Replace the findings: judging can be done again at any time."""
        write_findings(self.path, findings)

    def close(self) -> None:
        """Close the files and give the reserved space back."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        release_reserve(self.path)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def create_run(
    out: Path,
    *,
    kind: str,
    spec: JsonObject,
    seed: int,
    is_child: bool = False,
    path: Path | None = None,
    host: str | None = None,
) -> RunWriter:
    """Make the folder of a new run under ``out`` and point ``latest`` at it.

    ``is_child`` is for a run inside another run, as a game day's load: it gets no ``latest``; ``path`` names
    its folder where the parent has to know it beforehand; ``host`` is whom it is about, if not this machine.

    Raises:
        ConfigError: the folder cannot be made or written.
    """
    try:
        folder = path or make_folder(out, (_new_id(kind) for _ in range(_ID_ATTEMPTS_MAX)))
        (folder / SERIES_FOLDER).mkdir(parents=True)
        (folder / REQUESTS_FOLDER).mkdir()
    except OSError as error:
        raise ConfigError(f"{path or out}: the run folder cannot be made: {_reason(error)}") from error
    header = RunHeader(
        id=_new_id(kind) if path is not None else folder.name,
        kind=kind,
        started_ns=time.time_ns(),
        seed=seed,
        spec=mask_secrets(spec),
        command=mask_arguments(sys.argv),
        host=host or os.uname().nodename,
        pid=os.getpid(),
        pid_start_time=process_start_time(os.getpid()),
        versions=_versions(),
        clock_offset_s={},
    )
    try:
        write_atomically(folder / RUN_FILE, to_json_line({n: getattr(header, n) for n in header.__slots__}))
        _reserve(folder)
        if not is_child:
            _point_latest(out, folder)
    except OSError as error:
        raise ConfigError(f"{folder}: the run folder cannot be written: {_reason(error)}") from error
    return RunWriter(folder, header)


def _reason(error: OSError) -> str:
    return str(error.strerror or error)


def _new_id(kind: str) -> str:
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{kind}-{secrets.token_hex(2)}"


def make_folder(out: Path, ids: Iterable[str]) -> Path:
    """Make the folder of a run under the first id that no other run has: many may start in one second.

    Raises:
        OSError: it cannot be made, or every id is taken.
    """
    out.mkdir(parents=True, exist_ok=True)
    for run_id in ids:
        with contextlib.suppress(FileExistsError):
            (out / run_id).mkdir()
            return out / run_id
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(out))


def open_for_append(path: Path) -> int:
    """Open a file of the record for appending and return its descriptor."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}; the run stops here") from error


def write_whole(descriptor: int, data: bytes, path: Path) -> None:
    """Write all of ``data`` with one call, or say that the disk is full and give back the reserve."""
    try:
        written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        release_reserve(find_run_folder(path))
        _end_torn_line(descriptor)
        raise RecordError(f"{path}: cannot be written: {error.strerror}; the run stops here") from error


def _end_torn_line(descriptor: int) -> None:
    """Half a line that found no more room must not swallow the next one, which will say what happened."""
    with contextlib.suppress(OSError):  # a lone newline does no harm, and there may be no room for it either
        os.write(descriptor, b"\n")


def find_run_folder(path: Path) -> Path:
    """Return the folder of the run that a file of the record belongs to."""
    return next((parent for parent in path.parents if (parent / RUN_FILE).exists()), path.parent)


def release_reserve(folder: Path) -> None:
    """Give the reserved space back, so that the last findings and undo entries fit on a full disk."""
    (folder / RESERVE_FILE).unlink(missing_ok=True)


def _reserve(folder: Path) -> None:
    descriptor = os.open(folder / RESERVE_FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    finally:
        os.close(descriptor)


def write_findings(folder: Path, findings: list[Finding]) -> None:
    """Replace ``findings.ndjson`` whole, so that a reader sees the old or the new judgement, never a mix."""
    lines = "".join(to_json_line(finding_to_json(finding)) for finding in findings)
    try:
        write_atomically(folder / FINDINGS_FILE, lines)
    except OSError as error:
        raise RecordError(f"{folder / FINDINGS_FILE}: cannot be written: {error.strerror}") from error


def write_atomically(path: Path, text: str) -> None:
    """Write a file beside its place, flush it to the disk, and move it there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _point_latest(out: Path, folder: Path) -> None:
    beside = out / f".latest.{os.getpid()}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(folder.name)
    beside.replace(out / "latest")


def mask_secrets(value: JsonObject) -> JsonObject:
    """Return a copy in which values under keys that name a secret are hidden."""
    masked = _mask(value)
    assert isinstance(masked, dict)
    return masked


def _mask(value: object) -> object:
    if isinstance(value, dict):
        return {key: "***" if _is_secret(str(key)) and item else _mask(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mask(item) for item in value]
    return value


def _is_secret(key: str) -> bool:
    lowered = key.lower()
    # ``api_key_env`` and ``api_key_file`` name where a secret is, which is no secret.
    return not lowered.endswith(("_env", "_file")) and any(word in lowered for word in _SECRET_WORDS)


def mask_arguments(arguments: list[str]) -> list[str]:
    """Hide what follows ``--…secret-word`` on a command line."""
    masked: list[str] = []
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        hides_next = bool(masked) and masked[-1].startswith("--") and _is_secret(masked[-1].replace("-", "_"))
        if hides_next and "=" not in masked[-1]:
            masked.append("***")
        elif equals and flag.startswith("--") and _is_secret(flag.replace("-", "_")):
            masked.append(f"{flag}=***")
        else:
            masked.append(argument)
    return masked


def _versions() -> dict[str, str]:
    python_and_kernel = {"python": sys.version.split()[0], "kernel": os.uname().release}
    return python_and_kernel | installed_versions(("overproof", *_PACKAGES))


def load_header(folder: Path) -> RunHeader:
    """Read ``run.json``.

    Raises:
        ConfigError: this is no run folder, or one of a newer overproof.
    """
    path = folder / RUN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{folder}: not a run folder: {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
        raise ConfigError(f"{path}: has no schema_version; it was not written by overproof")
    if data["schema_version"] > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema_version {data['schema_version']}, "
            f"this overproof reads up to {SCHEMA_VERSION}; update it"
        )
    try:
        return RunHeader(**{name: data[name] for name in RunHeader.__slots__ if name in data})
    except TypeError as error:
        raise ConfigError(f"{path}: incomplete: {error}") from error

"""A worker's rows on their way to the record: Parquet files in chunks, each taken before the next is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from probes.errors import RecordError
from probes.json_types import JsonObject
from reports.record import REQUESTS_FOLDER, SERIES_FOLDER

CHUNK_BYTES = 1 << 20
KINDS = (REQUESTS_FOLDER, SERIES_FOLDER)


def part_path(run: Path, kind: str, worker: int) -> Path:
    """Return where one worker's rows belong in a record; nobody else names files there."""
    return (
        run / kind / (f"worker-{worker}.parquet" if kind == REQUESTS_FOLDER else f"client-{worker}.parquet")
    )


def cut_part(path: Path, kind: str) -> Iterator[JsonObject]:
    """Yield the chunks of a file; the last one vouches for the whole."""
    digest, offset, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            is_last = offset + len(data) >= size
            yield {
                "kind": kind,
                "offset": offset,
                "data": data,
                "sha256": digest.hexdigest() if is_last else "",
            }
            offset += len(data)


@dataclass(slots=True)
class _Open:
    file: IO[bytes]
    digest: hashlib._Hash
    size: int = 0


class PartTaker:
    """Puts one worker's chunks together; a file appears in the record only when it is whole."""

    def __init__(self, run: Path, worker: int) -> None:
        self._run, self._worker = run, worker
        self._open: dict[str, _Open] = {}

    def take(self, chunk: JsonObject) -> None:
        """Take the next chunk of a file.

        Raises:
            ValueError: it does not fit what came before.
            RecordError: the disk is full.
        """
        kind = str(chunk["kind"])
        if kind not in KINDS:
            raise ValueError(f"worker {self._worker}: sent rows of an unknown kind {kind!r:.40}")
        target = part_path(self._run, kind, self._worker)
        beside = target.with_suffix(".parquet.part")
        try:
            if kind not in self._open:
                self._open[kind] = _Open(beside.open("wb"), hashlib.sha256())
            part, data = self._open[kind], bytes(chunk["data"])
            if chunk["offset"] != part.size:
                raise ValueError(
                    f"{target.name}: a chunk at {chunk['offset']} came where {part.size} was due"
                )
            part.file.write(data)
            part.digest.update(data)
            part.size += len(data)
            if chunk["sha256"]:
                self._finish(kind, str(chunk["sha256"]), beside, target)
        except OSError as error:
            raise RecordError(f"{target}: cannot be written: {error.strerror}; the run stops here") from error

    def _finish(self, kind: str, sha256: str, beside: Path, target: Path) -> None:
        part = self._open.pop(kind)
        part.file.close()
        if part.digest.hexdigest() != sha256:
            beside.unlink()
            raise ValueError(f"{target.name}: what came is not what worker {self._worker} sent (SHA-256)")
        beside.replace(target)

    def abandon(self) -> None:
        """Give up what is not whole."""
        for kind, part in self._open.items():
            part.file.close()
            part_path(self._run, kind, self._worker).with_suffix(".parquet.part").unlink(missing_ok=True)
        self._open.clear()

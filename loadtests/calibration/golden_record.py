"""What the golden endpoint really sent and when, as a compact file: the truth that a client is held against.

A file that is short, changed or of another version is refused: half a truth would certify anything.
"""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from probes.errors import RecordError

_MAGIC = b"overproof golden 1\n"
_COUNT = struct.Struct("<I")
_STREAM = struct.Struct("<HHqqqI")  # id bytes, slow sends, received, planned, gap, sends
_SLOW = struct.Struct("<Iq")
_CRC = struct.Struct("<I")


@dataclass(slots=True)
class GoldenStream:
    """One answer. Times are CLOCK_REALTIME in nanoseconds of the machine that both ends run on."""

    request_id: str
    t_received_ns: int  # the kernel's stamp of the request's last byte
    t_planned_ns: int  # when the first event with content was to be sent; the next follow every gap_ns
    gap_ns: int
    sends_ns: array[int] = field(default_factory=lambda: array("q"))  # read right before each write
    # Writes that took long: (position of the event, how long), so that it is known how sure its time is.
    slow: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRecord:
    """All answers of one golden endpoint."""

    streams: tuple[GoldenStream, ...]
    clock_step_ns: int  # how far wall and monotonic clock moved apart meanwhile
    blocked: int  # answers given up because the client did not read
    cpu_s: float
    wall_s: float


def write_golden(path: Path, record: GoldenRecord) -> None:
    """Write a record so that it is there whole or not at all."""
    head = {
        "clock_step_ns": record.clock_step_ns,
        "blocked": record.blocked,
        "cpu_s": record.cpu_s,
        "wall_s": record.wall_s,
    }
    parts = [_MAGIC, json.dumps(head).encode() + b"\n", _COUNT.pack(len(record.streams))]
    for stream in record.streams:
        parts += _stream_parts(stream)
    data = b"".join(parts)
    scratch = path.with_suffix(".part")
    scratch.write_bytes(data + _CRC.pack(zlib.crc32(data)))
    scratch.replace(path)


def _stream_parts(stream: GoldenStream) -> list[bytes]:
    name = stream.request_id.encode()
    sizes = _STREAM.pack(
        len(name),
        len(stream.slow),
        stream.t_received_ns,
        stream.t_planned_ns,
        stream.gap_ns,
        len(stream.sends_ns),
    )
    return [sizes, name, *(_SLOW.pack(*slow) for slow in stream.slow), stream.sends_ns.tobytes()]


def read_golden(path: Path) -> GoldenRecord:
    """Read a record back.

    Raises:
        RecordError: it is not there, not whole, or not one.
    """
    try:
        data = path.read_bytes()
        body, crc = data[: -_CRC.size], data[-_CRC.size :]
        if not data.startswith(_MAGIC) or _CRC.pack(zlib.crc32(body)) != crc:
            raise ValueError("it is not whole")
        end = body.index(b"\n", len(_MAGIC))
        head, streams = json.loads(body[len(_MAGIC) : end]), _read_streams(body, end + 1)
        return GoldenRecord(streams=streams, **head)
    except (OSError, ValueError, TypeError, struct.error) as error:
        raise RecordError(f"{path}: the golden endpoint's record cannot be used: {error}") from error


def _read_streams(body: bytes, at: int) -> tuple[GoldenStream, ...]:
    (count,) = _COUNT.unpack_from(body, at)
    at += _COUNT.size
    streams = []
    for _ in range(count):
        size, slow, received, planned, gap, sends = _STREAM.unpack_from(body, at)
        at += _STREAM.size
        stream = GoldenStream(body[at : at + size].decode(), received, planned, gap)
        at += size
        stream.slow += [_SLOW.unpack_from(body, at + number * _SLOW.size) for number in range(slow)]
        at += slow * _SLOW.size
        stream.sends_ns.frombytes(body[at : at + 8 * sends])
        at += 8 * sends
        streams.append(stream)
    if at != len(body):
        raise ValueError(f"{len(body) - at} bytes too many")
    return tuple(streams)

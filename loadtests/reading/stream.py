"""An HTTP/1.1 answer, taken apart as it arrives: bytes in, pieces of the body out.

Nothing here touches a socket, so every split of every answer can be tested. Whatever a server sends, memory
is bounded: by ``HEAD_BYTES_MAX`` and by what the caller does with the pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES_MAX = 64 * 1024
EVENTS_MAX_DEFAULT, BYTES_MAX_DEFAULT = 1_000_000, 1024 * 1024 * 1024  # of one answer
_LINE_BYTES_MAX = 1024  # of a chunk's size with its extensions, and of a trailer
_TRAILERS_MAX = 64
_INTERIM_HEADS_MAX = 16  # 100 Continue, 103 Early Hints
_LENGTH_DIGITS_MAX = 15
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[^\r\n]*)?")
# Size lines seen before, by their text: servers send the same few sizes over and over.
_known_sizes: dict[bytes, int] = {}
_KNOWN_SIZES_MAX = 4096
_KNOWN_SIZE_BYTES_MAX = 8  # what is longer has an extension
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class BadHttpError(ValueError):
    """The answer is not HTTP as the standard has it; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Status and header fields (names in lower case; a repeated field is joined with a comma)."""

    status: int
    is_http_1_0: bool
    fields: dict[str, str]


class AnswerDecoder:
    """Takes one answer apart. ``surplus`` is what came after its end, which nobody asked for."""

    __slots__ = (
        "_at",
        "_buffer",
        "_ends_with_connection",
        "_interim_heads",
        "_left",
        "_take",
        "_trailers",
        "head",
        "is_complete",
        "surplus",
    )

    def __init__(self) -> None:
        self.head: Head | None = None  # None: it has not come whole yet
        self.is_complete = False
        self.surplus = b""
        self._buffer = b""
        self._at = 0  # what lies before is taken: cutting it off at each chunk would copy the rest each time
        self._take: Callable[[AnswerDecoder, list[bytes]], bool] = AnswerDecoder._take_head
        self._left = 0  # bytes still to come of this chunk or this body
        self._ends_with_connection = False
        self._interim_heads = self._trailers = 0

    @property
    def is_between_chunks(self) -> bool:
        """Whether the next byte begins a chunk."""
        return self._take is AnswerDecoder._take_size and not self._buffer and not self.is_complete

    @property
    def has_begun_more(self) -> bool:
        """Whether something has come that is not whole: a line, or part of what follows."""
        return bool(self._buffer) or (self._left > 0 and self._take is AnswerDecoder._take_chunk)

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can carry another request after this answer."""
        if self.head is None or not self.is_complete or self.surplus or self._ends_with_connection:
            return False
        said = self.head.fields.get("connection", "").lower()
        return "close" not in said and (not self.head.is_http_1_0 or "keep-alive" in said)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of the body that ``data`` completes.

        Raises:
            BadHttpError: this is not HTTP.
        """
        if self.is_between_chunks:  # the usual case: one read, one whole chunk
            end = data.find(b"\r\n")
            size = _known_sizes.get(data[:end]) if end > 0 else None
            if size and len(data) == end + size + 4 and data.endswith(b"\r\n"):
                return [data[end + 2 : -2]]
        self._buffer = self._buffer + data if self._buffer else data
        pieces: list[bytes] = []
        while not self.is_complete and self._take(self, pieces):
            pass
        self._buffer, self._at = self._buffer[self._at :], 0
        if self.is_complete:
            self.surplus, self._buffer = self.surplus + self._buffer[:_LINE_BYTES_MAX], b""
        return pieces

    def end_of_connection(self) -> bool:
        """Take note that the server has closed; return whether the answer is whole with that."""
        if self._ends_with_connection and self.head is not None:
            self.is_complete = True
        return self.is_complete

    def _take_head(self, pieces: list[bytes]) -> bool:
        del pieces
        end = self._buffer.find(b"\r\n\r\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > HEAD_BYTES_MAX:
                raise BadHttpError(f"header longer than {HEAD_BYTES_MAX} bytes")
            begin = self._buffer[self._at : self._at + 60]
            if not b"HTTP/1.".startswith(begin[:7]):
                hint = "; that is TLS: is it https://?" if begin[:2] in (b"\x15\x03", b"\x16\x03") else ""
                raise BadHttpError(f"does not begin like HTTP/1: {begin!r}{hint}")
            line_end = self._buffer.find(b"\n", self._at)
            if line_end > 0 and self._buffer[line_end - 1 : line_end] != b"\r":
                raise BadHttpError(f"the lines of its head end without a return: {begin!r}")
            return False
        head = _parse_head(self._buffer[self._at : end])
        self._at = end + 4
        if head.status < 200:  # the answer itself comes after
            self._interim_heads += 1
            if head.status == 101 or self._interim_heads > _INTERIM_HEADS_MAX:
                raise BadHttpError(
                    f"HTTP {head.status} instead of an answer ({self._interim_heads} such heads)"
                )
            return True
        self.head = head
        self._choose_body(head)
        return True

    def _choose_body(self, head: Head) -> None:
        coding = head.fields.get("transfer-encoding", "").lower()
        length = head.fields.get("content-length")
        if coding and length is not None:
            raise BadHttpError("both transfer-encoding and content-length: where it ends is ambiguous")
        if head.status in (204, 304):
            self.is_complete = True
        elif coding:
            if coding != "chunked":
                raise BadHttpError(f"transfer-encoding {coding!r}, wanted chunked")
            self._take = AnswerDecoder._take_size
        elif length is not None:
            if not length.isascii() or not length.isdigit() or len(length) > _LENGTH_DIGITS_MAX:
                raise BadHttpError(f"content-length {length[:40]!r} is not a length")
            self._left, self._take = int(length), AnswerDecoder._take_body
            self.is_complete = self._left == 0
        else:
            self._ends_with_connection, self._take = True, AnswerDecoder._take_rest

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            if len(self._buffer) - self._at > _LINE_BYTES_MAX:
                raise BadHttpError(f"line longer than {_LINE_BYTES_MAX} bytes between chunks")
            return None
        line, self._at = self._buffer[self._at : end], end + 2
        return line

    def _take_size(self, pieces: list[bytes]) -> bool:
        del pieces
        line = self._line()
        if line is None:
            return False
        size = _known_sizes.get(line)
        if size is None:
            size = _parse_size(line)
        self._left = size
        self._take = AnswerDecoder._take_chunk if size else AnswerDecoder._take_trailer
        return True

    def _take_piece(self, pieces: list[bytes]) -> None:
        """Take as much of the chunk or body as there is."""
        piece = self._buffer[self._at : self._at + self._left]
        self._at += len(piece)
        self._left -= len(piece)
        if piece:
            pieces.append(piece)

    def _take_chunk(self, pieces: list[bytes]) -> bool:
        self._take_piece(pieces)
        if self._left:
            return False
        self._take = AnswerDecoder._take_chunk_end
        return True

    def _take_chunk_end(self, pieces: list[bytes]) -> bool:
        del pieces
        end = self._buffer[self._at : self._at + 20]
        if not b"\r\n".startswith(end[:2]):
            raise BadHttpError(f"no line end after a chunk but {end!r}")
        if len(end) < 2:
            return False
        self._at, self._take = self._at + 2, AnswerDecoder._take_size
        return True

    def _take_trailer(self, pieces: list[bytes]) -> bool:
        del pieces
        line = self._line()
        if line is None:
            return False
        self.is_complete = not line
        self._trailers += 1
        if self._trailers > _TRAILERS_MAX:
            raise BadHttpError(f"more than {_TRAILERS_MAX} trailers")
        return True

    def _take_body(self, pieces: list[bytes]) -> bool:
        self._take_piece(pieces)
        self.is_complete = self._left == 0
        return False

    def _take_rest(self, pieces: list[bytes]) -> bool:
        if self._at < len(self._buffer):
            pieces.append(self._buffer[self._at :])
        self._at = len(self._buffer)
        return False


def _parse_head(text: bytes) -> Head:
    first, *lines = text.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise BadHttpError(f"not a status line: {first[:60]!r}")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _FIELD_NAME.fullmatch(name) or _CONTROL.search(value):
            raise BadHttpError(f"not a header field: {line[:60]!r}")
        key, text_value = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
        fields[key] = f"{fields[key]}, {text_value}" if key in fields else text_value
    return Head(status=int(match[2]), is_http_1_0=match[1] == b"0", fields=fields)


def _parse_size(line: bytes) -> int:
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise BadHttpError(f"not a chunk size: {line[:20]!r}")
    size = int(match[1], 16)
    if len(_known_sizes) < _KNOWN_SIZES_MAX and len(line) <= _KNOWN_SIZE_BYTES_MAX:
        _known_sizes[line] = size
    return size

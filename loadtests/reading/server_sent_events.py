"""Server-sent events as the HTML standard has them: pieces of a body in, the data of whole events out."""

from __future__ import annotations

import re

EVENT_BYTES_MAX = 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """One event is longer than any server has reason to send."""


class EventDecoder:
    """Takes one event stream apart, however it is split."""

    __slots__ = (
        "_data",
        "_ended_with_return",
        "_is_at_start",
        "_line",
        "_size",
    )

    def __init__(self) -> None:
        self._line = bytearray()  # of a line that has not ended yet
        self._data: list[bytes] = []  # data lines of an event that has not ended yet
        self._size = 0
        self._is_at_start = True
        self._ended_with_return = False  # a newline that comes next belongs to that line end

    @property
    def is_mid_event(self) -> bool:
        """Whether the stream has stopped inside an event, which the standard says to drop."""
        return bool(self._data or self._line)

    @property
    def is_between_events(self) -> bool:
        """Whether the next byte begins an event, and nothing from before has a say in it."""
        return not (self._line or self._data or self._is_at_start or self._ended_with_return)

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that ``piece`` completes.

        Raises:
            EventTooLongError: an event does not end.
        """
        if (  # the usual case: the piece is exactly one event of one data line
            not self._line
            and not self._data
            and piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and piece.count(b"\n") == 2
            and b"\r" not in piece
        ):
            self._is_at_start = self._ended_with_return = False
            return [piece[6:-2]]
        return self._feed_lines(piece)

    def _feed_lines(self, piece: bytes) -> list[bytes]:
        if self._ended_with_return and piece:
            self._ended_with_return = False
            piece = piece.removeprefix(b"\n")
        if not piece:
            return []
        *whole, rest = _LINE_END.split(piece)
        self._ended_with_return = piece.endswith(b"\r")
        found: list[bytes] = []
        for line in whole:
            if self._line:
                self._line += line
                line, self._line = bytes(self._line), bytearray()
            self._take_line(line, found)
        self._line += rest
        if self._size + len(self._line) > EVENT_BYTES_MAX:
            raise EventTooLongError(f"an event is longer than {EVENT_BYTES_MAX} bytes")
        return found

    def _take_line(self, line: bytes, found: list[bytes]) -> None:
        if self._is_at_start:
            self._is_at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            if self._data:
                found.append(b"\n".join(self._data))
                self._data, self._size = [], 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":  # comments, event names, ids and retry times say nothing here
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1

"""Recognises a text that says the same over and over: a generation that has lost its way."""

from __future__ import annotations

CHARS_MIN = 512  # of the end of a text that are looked at
REPEATS_MIN = 8
_PATTERN_CHARS = 24


def is_repeating(text: str) -> bool:
    """Whether the last characters are one piece at least eight times in a row.

    Lists of similar lines differ somewhere and are none.
    """
    tail = text[-CHARS_MIN:]
    if len(tail) < CHARS_MIN:
        return False
    before = tail.rfind(tail[-_PATTERN_CHARS:], 0, len(tail) - 1)
    period = len(tail) - _PATTERN_CHARS - before
    return before >= 0 and period * REPEATS_MIN <= len(tail) and tail[period:] == tail[:-period]

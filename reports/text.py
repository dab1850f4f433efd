"""Text that came from a target, made safe to show: it may hold terminal commands or reverse reading order."""

from __future__ import annotations

import re

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# Control characters except tab and newline, and what changes the direction of the text around it.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: str) -> str:
    """Drop terminal commands; show every other control character as the replacement character."""
    return _HIDDEN.sub("\ufffd", _ANSI.sub("", text))


def one_line(text: str, most: int = 300) -> str:
    """Return the text on one line, cut to ``most`` characters."""
    joined = " ".join(plain(text).split())
    return joined if len(joined) <= most else joined[: most - 1] + "…"


def first_line(error: BaseException) -> str:
    """Return what an error says, without the query and the carets that DuckDB shows below it."""
    return str(error).partition("\n")[0]

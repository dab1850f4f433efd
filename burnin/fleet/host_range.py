"""Names of hosts written short: ``gpu[001-016,020]-b`` stands for seventeen hosts."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence

HOSTS_MAX = 100_000
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_SPAN = re.compile(r"(\d+)(?:-(\d+))?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_DIGITS = re.compile(r"(\d+)")


def expand_hosts(text: str) -> tuple[str, ...]:
    """Return the names that a range stands for, in its order; the width of numbers is kept.

    Raises:
        ValueError: it is no range, stands for nobody or for too many, or a name would be no host's.
    """
    parts = [_choices(part) for part in _split(text)]
    count = math.prod(_count(part) for part in parts)
    if count > HOSTS_MAX:
        raise ValueError(f"{text!r} stands for {count} hosts; at most {HOSTS_MAX} are allowed")
    names = tuple("".join(words) for words in itertools.product(*(_words(part) for part in parts)))
    for name in names:
        if len(name) > 253 or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no name of a host: letters, digits, '.', '-' and '_' only")
    return names


def compress_hosts(names: Iterable[str]) -> str:
    """Return ranges, joined by blanks, that stand for these names; in the order of their names."""
    found: dict[tuple[str, str, int], list[int]] = {}
    plain: list[str] = []
    for name in sorted(set(names)):
        numbers = list(_DIGITS.finditer(name))
        if numbers:
            last = numbers[-1]
            key = (name[: last.start()], name[last.end() :], len(last.group()))
            found.setdefault(key, []).append(int(last.group()))
        else:
            plain.append(name)
    return " ".join(sorted(plain) + [_written(*key, numbers) for key, numbers in sorted(found.items())])


_Choices = str | list[tuple[int, int, int]]  # plain text, or spans: first, last, width


def _split(text: str) -> Sequence[tuple[str, str]]:
    parts = [(m.group(1), m.group(2)) for m in _PART.finditer(text)]
    if "".join(m.group(0) for m in _PART.finditer(text)) != text or not text:
        raise ValueError(f"{text!r:.80} is no range of hosts; write gpu[001-016], or several gpu[1-4,7]-b")
    return parts


def _choices(part: tuple[str | None, str | None]) -> _Choices:
    inside, plain = part
    if inside is None:
        assert plain is not None
        return plain
    return [_span(text.strip(), inside) for text in inside.split(",")]


def _span(text: str, inside: str) -> tuple[int, int, int]:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"[{inside}]: {text!r:.40} is neither a number nor a span such as 001-016")
    first, last = match.group(1), match.group(2) or match.group(1)
    if max(len(first), len(last)) > 12:
        raise ValueError(f"[{inside}]: {text!r:.40}: a number of more than twelve digits")
    if int(last) < int(first):
        raise ValueError(f"[{inside}]: {text!r} is empty: it ends before it begins")
    if len(first) != len(last) and first.startswith("0") and first != "0":
        raise ValueError(f"[{inside}]: {text!r} has numbers of two widths")
    return int(first), int(last), len(first) if len(first) == len(last) else 0


def _count(part: _Choices) -> int:
    return 1 if isinstance(part, str) else sum(last - first + 1 for first, last, _ in part)


def _words(part: _Choices) -> Iterable[str]:
    if isinstance(part, str):
        return (part,)
    return (str(n).zfill(width) for first, last, width in part for n in range(first, last + 1))


def _written(before: str, after: str, width: int, numbers: Sequence[int]) -> str:
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    texts = [f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in spans]
    if len(numbers) == 1:
        return f"{before}{texts[0]}{after}"
    return f"{before}[{','.join(texts)}]{after}"

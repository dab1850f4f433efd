"""Grades answers exactly, and tolerantly of how they are worded.

What decides is the last ``ANSWER:`` of the text, or the text itself where it is one line. Whatever leaves a
doubt about what is meant is wrong: two candidates, a negation, a sign or an exponent that does not belong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from loadtests.traffic.tasks import Task

_MARK = re.compile(r"(?i)\banswer\b(?:\s+is\b)?[\s*_`]*[:=]?[\s*_`]*")
_NUMBER = re.compile(
    r"(?<![\w.,+*/^-])-?(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.0+)?(?![\w%^*/]|[.,]\d|-\d)"
)
_MINUS = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u202f": " "})
_DOUBT = re.compile(
    r"(?i)\b(?:not|no|never|or|isn't|wrong|either|about|around|roughly|approximately|minus)\b"
)
_SURROUNDINGS = re.compile(r"[A-Za-z\s.,;:!'\"()\[\]$€£*`_={}\\<>]*")
_CODE = re.compile(r"(?<![\w-])[A-Z]{2}-\d{4}(?![\w-])")
_SEPARATORS = re.compile(r"\s*(?:,|;|->|→|<|\s+and\s+|\s)\s*")
_QUOTES = "\"'`*<> \t“”‘’"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Whether an answer is right; ``reason`` says why it is not."""

    is_right: bool
    reason: str = ""


def grade(task: Task, text: str) -> Grade:
    """Grade one answer."""
    if task.kind == "json":
        return _grade_json(task.answer, text)
    said = _said(text)
    if said is None:
        return Grade(is_right=False, reason="no answer in the form that was asked for")
    is_right = _MATCHERS[task.kind](task.answer, said)
    return Grade(is_right=is_right, reason="" if is_right else f"wanted {task.answer!r}, got {said[:80]!r}")


def _said(text: str) -> str | None:
    """Return what the text gives as its answer: one line; None: it gives none."""
    marks = list(_MARK.finditer(text))
    if marks:
        rest = text[marks[-1].end() :].strip()
        return rest.partition("\n")[0].strip() or None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else None


def _is_number(answer: str, said: str) -> bool:
    said = re.sub(r"\\boxed\{([^{}]*)\}", r" \1 ", said.translate(_MINUS)).replace("$", " ")
    said = re.sub(r"[*_`]+(?=-?\d)|(?<=\d)[*_`]+(?!\d)", " ", said)
    found = _NUMBER.findall(said)
    if len(found) != 1 or _DOUBT.search(said):
        return False
    if not _SURROUNDINGS.fullmatch(_NUMBER.sub("", said)):
        return False
    return int(found[0].replace(",", "").partition(".")[0]) == int(answer)


def _is_list(answer: str, said: str) -> bool:
    inner = said.strip(_QUOTES).rstrip(".").strip().strip("[](){}").strip()
    return [part for part in _SEPARATORS.split(inner) if part] == answer.split(", ")


def _is_code(answer: str, said: str) -> bool:
    return set(_CODE.findall(said.upper())) == {answer} and not _DOUBT.search(said)


def _is_text(answer: str, said: str) -> bool:
    return said.strip(_QUOTES).rstrip(".").strip(_QUOTES) == answer


_MATCHERS: dict[str, Callable[[str, str], bool]] = {
    "sum": _is_number,
    "story": _is_number,
    "sort": _is_list,
    "lookup": _is_code,
    "canary": _is_text,
}


def _grade_json(answer: str, text: str) -> Grade:
    """One JSON object, whatever stands around it; keys, values and their types have to be right."""
    found = _objects(text)
    if len(found) != 1:
        return Grade(is_right=False, reason=f"wanted one JSON object, got {len(found)}")
    is_right = _canonical(found[0]) == _canonical(json.loads(answer))
    return Grade(is_right=is_right, reason="" if is_right else f"wanted {answer}, got {str(found[0])[:80]}")


def _objects(text: str) -> list[object]:
    decoder, found, place = json.JSONDecoder(object_pairs_hook=_without_doubles), [], text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            found.append(value)
        except (ValueError, RecursionError):
            return []  # a broken object, or what belongs to one: nothing in it may count as a whole one
        place = text.find("{", end)
    return found


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _canonical(value: object) -> str:
    """Return JSON that tells 1 from true and from 1.0, whatever the order of the keys."""
    return json.dumps(value, sort_keys=True)

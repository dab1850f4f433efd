"""How the simulated endpoint solves tasks: it reads the words of the prompt, as a model would have to.

It shares no code with what makes the tasks, so a prompt that does not say what its answer says would show.
"""

from __future__ import annotations

import json
import re

_TASK = re.compile(r"Task \((\w+)\)\. (.*)", re.DOTALL)
_TERM = re.compile(r"([+-]?) ?(\d+)(?: \* (\d+))?")
_STEP = re.compile(r"has (\d+) \w+\.|buys (\d+) boxes with (\d+)|gives away (\d+)|(doubles)")


def solve(prompt: str) -> str | None:
    """Return the answer in the form that the prompt asks for; None: this is no task."""
    match = _TASK.match(prompt)
    if match is None or match[1] not in _SOLVERS:
        return None
    answer = _SOLVERS[match[1]](match[2])
    return answer if match[1] == "json" else f"ANSWER: {answer}"


def spoil(answer: str) -> str:
    """Return a wrong answer that looks like the right one: its last digit is another."""
    place = max(place for place, character in enumerate(answer) if character.isdigit())
    return f"{answer[:place]}{(int(answer[place]) + 1) % 10}{answer[place + 1 :]}"


def _sum(text: str) -> str:
    expression = text.removeprefix("What is ").partition("?")[0]
    total = 0
    for sign, term, factor in _TERM.findall(expression):
        total += (-1 if sign == "-" else 1) * int(term) * int(factor or 1)
    return str(total)


def _sort(text: str) -> str:
    listed = text.partition(": ")[2].partition(".")[0]
    return ", ".join(sorted(listed.split(", "), key=int))


def _story(text: str) -> str:
    count = 0
    for has, boxes, each, given, doubles in _STEP.findall(text):
        count += (
            int(has or 0) + int(boxes or 0) * int(each or 0) - int(given or 0) + (count if doubles else 0)
        )
    return str(count)


def _lookup(text: str) -> str:
    asked = text.partition("What is the code of ")[2].partition("?")[0]
    return text.partition(f"The code of {asked} is ")[2].partition(".")[0]


def _json(text: str) -> str:
    facts = dict(re.findall(r"(\w+): ([^.]+)\.", text.partition(" Write this")[0]))
    found: dict[str, object] = {
        "item": facts["Item"],
        "colour": facts["Colour"],
        "count": int(facts["Count"]),
    }
    if "Sizes" in facts:
        found["sizes"] = sorted(int(size) for size in facts["Sizes"].split(", "))
    if "Maker" in facts:
        name, _, year = facts["Maker"].partition(", since ")
        found["maker"] = {"name": name, "year": int(year)}
    return json.dumps(found)


def _canary(text: str) -> str:
    return text.partition("<")[2].partition(">")[0]


_SOLVERS = {
    "sum": _sum,
    "sort": _sort,
    "story": _story,
    "lookup": _lookup,
    "json": _json,
    "canary": _canary,
}

"""Tasks whose right answer is known: made from the seed, graded in difficulty, with a stated answer format.

They are not there to rank models. The same task is asked when the service is idle and under load, so that a
model's own weakness cancels out and what the load does to answers is left.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from loadtests.traffic.arrivals import CHAIN_STRIDE

KINDS = ("sum", "sort", "story", "lookup", "json", "canary")
OPENING = "Task ("
_BLOCK = 100  # of so many arrivals, a fixed number are tasks, at places drawn by the seed
_CHAIN_STEP = 7919  # users of a closed loop begin with different tasks
_TEXT = (
    "amber basil cedar delta ember fjord grove hazel inlet jade kelp lotus maple north opal pearl quartz "
    "raven slate tulip umber violet willow zinc"
)
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question and its one right answer."""

    number: int
    kind: str
    difficulty: int  # from 1 to 3
    prompt: str
    answer: str  # in the form that the prompt asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """Which arrivals are tasks, and what happens with the answers."""

    share: float
    kinds: tuple[str, ...]
    difficulties: tuple[int, ...]
    count: int  # different tasks
    output_tokens: int
    confidence: float
    worse_by_max: float
    idle_s_max: float

    def task(self, number: int, *, seed: int) -> Task:
        """Return the task with this number."""
        kind = self.kinds[number % len(self.kinds)]
        difficulty = self.difficulties[number // len(self.kinds) % len(self.difficulties)]
        return make_task(number, kind=kind, difficulty=difficulty, seed=seed)

    def number_at(self, index: int, *, seed: int) -> int | None:
        """Return which task an arrival asks; None: it is an ordinary request.

        Not every tenth arrival, say: behind a load balancer that takes turns, one replica would get them all.
        """
        chain, turn = divmod(index, CHAIN_STRIDE)
        block, place = divmod(turn, _BLOCK)
        per_block = max(1, round(self.share * _BLOCK))
        rank = _places(seed, chain, block, per_block).get(place)
        return None if rank is None else (block * per_block + rank + chain * _CHAIN_STEP) % self.count


@lru_cache(maxsize=4096)
def _places(seed: int, chain: int, block: int, per_block: int) -> dict[int, int]:
    places = random.Random(f"tasks:{seed}:{chain}:{block}").sample(range(_BLOCK), per_block)
    return {place: rank for rank, place in enumerate(places)}


def make_task(number: int, *, kind: str, difficulty: int, seed: int) -> Task:
    """Return one task: the same seed and number, the same words."""
    chance = random.Random(f"task:{seed}:{number}")
    question, answer = _MAKERS[kind](chance, difficulty)
    form = "Reply with the JSON object alone." if kind == "json" else _line_form(kind)
    prompt = f"{OPENING}{kind}). {question} {form}"
    return Task(number=number, kind=kind, difficulty=difficulty, prompt=prompt, answer=answer)


def _line_form(kind: str) -> str:
    examples = {"sum": "1234", "story": "1234", "sort": "1, 2, 3", "lookup": "AB-1234", "canary": "the text"}
    return f"Reply with one line and no explanation, in the form: ANSWER: {examples[kind]}"


def _sum(chance: random.Random, difficulty: int) -> tuple[str, str]:
    """Sums and differences; from the second level on with products in between."""
    terms = [chance.randrange(10, 10 ** (difficulty + 1)) for _ in range(difficulty + 1)]
    factors = [chance.randrange(2, 10) if difficulty > 1 and chance.random() < 0.5 else 1 for _ in terms]
    signs = [1, *(chance.choice((1, -1)) for _ in terms[1:])]
    text, total = "", 0
    for position, (term, factor, sign) in enumerate(zip(terms, factors, signs, strict=True)):
        text += ("" if position == 0 else " + " if sign > 0 else " - ") + str(term)
        text += f" * {factor}" if factor > 1 else ""
        total += sign * term * factor
    return f"What is {text}?", str(total)


def _sort(chance: random.Random, difficulty: int) -> tuple[str, str]:
    numbers = chance.sample(range(100, 1000), 5 * 2 ** (difficulty - 1))
    question = f"Sort these numbers from the smallest to the largest: {_listed(numbers)}."
    return question, _listed(sorted(numbers))


def _story(chance: random.Random, difficulty: int) -> tuple[str, str]:
    """Several steps in words, each of which changes one count that never falls below zero."""
    thing, count = chance.choice(("pears", "coins", "bolts", "books")), chance.randrange(10, 60)
    sentences = [f"Ana has {count} {thing}."]
    for _ in range(difficulty + 1):
        kind = chance.choice(("buys", "gives", "doubles"))
        if kind == "buys":
            boxes, each = chance.randrange(2, 9), chance.randrange(3, 13)
            sentences.append(f"She buys {boxes} boxes with {each} {thing} each.")
            count += boxes * each
        elif kind == "gives" and count > 1:
            given = chance.randrange(1, count)
            sentences.append(f"She gives away {given} {thing}.")
            count -= given
        else:
            sentences.append("Then she doubles what she has.")
            count *= 2
    return f"{' '.join(sentences)} How many {thing} has Ana now?", str(count)


def _lookup(chance: random.Random, difficulty: int) -> tuple[str, str]:
    """One line among many that look alike."""
    pairs = [f"{a} {b}" for a in _WORDS for b in _WORDS if a != b]
    names = chance.sample(pairs, (20, 80, 240)[difficulty - 1])
    codes = [f"{_letters(chance)}-{number}" for number in chance.sample(range(1000, 10_000), len(names))]
    asked = chance.randrange(len(names))
    lines = " ".join(f"The code of {name} is {code}." for name, code in zip(names, codes, strict=True))
    return f"{lines} What is the code of {names[asked]}?", codes[asked]


def _letters(chance: random.Random) -> str:
    return "".join(chance.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=2))


def _json(chance: random.Random, difficulty: int) -> tuple[str, str]:
    """A JSON object by a schema in words."""
    item, colour = chance.sample(_WORDS, 2)
    count = chance.randrange(10, 1000)
    found: dict[str, object] = {"item": item, "colour": colour, "count": count}
    facts = f"Item: {item}. Colour: {colour}. Count: {count}."
    schema = "item (string), colour (string), count (integer)"
    if difficulty > 1:
        sizes = chance.sample(range(10, 100), 4)
        found["sizes"] = sorted(sizes)
        facts += f" Sizes: {_listed(sizes)}."
        schema += ", sizes (array of integers, ascending)"
    if difficulty > 2:
        name, year = chance.choice(_WORDS), chance.randrange(1900, 2000)
        found["maker"] = {"name": name, "year": year}
        facts += f" Maker: {name}, since {year}."
        schema += ", maker (object with name (string) and year (integer))"
    return f"{facts} Write this as one JSON object with exactly these keys: {schema}.", json.dumps(found)


def _canary(chance: random.Random, difficulty: int) -> tuple[str, str]:
    """Something to repeat: no skill is needed, so any mistake in it is the service's."""
    text = f"{' '.join(chance.choices(_WORDS, k=3 * difficulty))} {chance.randrange(1000, 10_000)}"
    return f"Repeat this text exactly: <{text}>.", text


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


_MAKERS = {
    "sum": _sum,
    "sort": _sort,
    "story": _story,
    "lookup": _lookup,
    "json": _json,
    "canary": _canary,
}

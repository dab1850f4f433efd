"""What is asked: the same seed and index give the same bytes, in any worker and any order.

Texts are cut from one long seeded list of words, so that a prompt costs a copy, not a draw per word.
"""

from __future__ import annotations

import json
import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from loadtests.traffic.prompt_files import PromptFile, read_pairs
from loadtests.traffic.trace import BLOCK_TOKENS, TraceRow
from probes.errors import ConfigError
from probes.json_types import JsonObject

_TEXT = (
    "river stone cloud engine market garden letter window bridge number signal forest paper silver motion "
    "winter harbor camera island answer column button travel object circle memory valley planet summer field"
)
_WORDS = tuple(_TEXT.split())
_POOL_WORDS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A distribution of token counts."""

    kind: str  # constant, normal or lognormal
    mean: float
    stddev: float
    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An observed request's sizes."""

    input_tokens: int
    output_tokens: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """A beginning that a share of the prompts has in common; there are ``count`` different ones."""

    share: float
    tokens: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptClass:
    """One kind of prompts."""

    input_tokens: Size
    output_tokens: Size
    weight: float = 1.0
    pairs: tuple[Pair, ...] = ()
    pairs_file: Path | None = None
    prefix: SharedPrefix | None = None
    defeats_prefix_cache: bool = True
    file: Path | None = None  # None: prompts are made
    is_sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WordScale:
    """How words become tokens at this endpoint: tokens = ``tokens_extra`` + words × ``tokens_per_word``."""

    tokens_per_word: float = 1.0  # common short words, with today's tokenizers, roughly
    tokens_extra: float = 17.0  # the sentence before the words and what a chat template adds, roughly

    def words(self, tokens: int) -> int:
        """Return how many words make a prompt of this many tokens, at least one."""
        return max(1, round((tokens - self.tokens_extra) / self.tokens_per_word))

    def words_inside(self, tokens: int) -> int:
        """Return how many words make this many tokens in the middle of a prompt."""
        return max(1, round(tokens / self.tokens_per_word))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One request's messages and how long its answer may get."""

    messages: tuple[JsonObject, ...]
    output_tokens: int


class Prompts:
    """Makes the prompts of a run."""

    def __init__(self, classes: Sequence[PromptClass], *, seed: int, scale: WordScale | None = None) -> None:
        self._sources = [_Source(one) for one in classes]
        self._weights = [one.weight for one in classes]
        self._seed = seed
        self._scale = scale or WordScale()
        _pool(seed)  # now: made at the first prompt, it would make the first arrivals late

    def prompt(self, index: int, *, row: TraceRow | None = None, is_follow_up: bool = False) -> Prompt:
        """Return the prompt of one arrival; ``row`` is what a trace says of it.

        A follow-up is the next turn of a conversation: what is before it makes it unlike any other already.
        """
        chance = random.Random(f"prompt:{self._seed}:{index}")
        if row is not None:
            return self._replayed(row, index, chance)
        source = self._sources[0]
        if len(self._sources) > 1:
            source = chance.choices(self._sources, self._weights)[0]
        if source.file is not None:
            line = chance.randrange(len(source.file)) if source.kind.is_sampled else index % len(source.file)
            messages, limit = source.file.read(line)
            return Prompt(
                messages=messages, output_tokens=limit or draw_size(source.kind.output_tokens, chance)
            )
        input_tokens, output_tokens = source.draw(chance)
        return self._made(source, chance, index, input_tokens, output_tokens, is_follow_up)

    def sized(self, index: int, *, input_tokens: int) -> Prompt:
        """Return a made prompt of a given size, without shared prefix, for an answer of one token."""
        chance = random.Random(f"sized:{self._seed}:{index}")
        return self._made(self._sources[0], chance, index, input_tokens, 1, is_bare=True)

    def sizes(self, count: int) -> list[int]:
        """Return input sizes as the first class of prompts draws them."""
        chance = random.Random(f"sizes:{self._seed}")
        return [self._sources[0].draw(chance)[0] for _ in range(count)]

    def close(self) -> None:
        """Close the prompt files."""
        for source in self._sources:
            if source.file is not None:
                source.file.close()

    def _made(
        self,
        source: _Source,
        chance: random.Random,
        index: int,
        input_tokens: int,
        output_tokens: int,
        is_follow_up: bool = False,
        is_bare: bool = False,
    ) -> Prompt:
        words = self._words(self._scale.words(input_tokens), chance)
        nonce = f"[{self._seed}-{index}] " if source.kind.defeats_prefix_cache and not is_follow_up else ""
        asked: JsonObject = {"role": "user", "content": f"{nonce}Go on with this list of words: {words}"}
        before = () if is_follow_up or is_bare else self._prefix(source.kind.prefix, chance)
        return Prompt(messages=(*before, asked), output_tokens=output_tokens)

    def _prefix(self, prefix: SharedPrefix | None, chance: random.Random) -> tuple[JsonObject, ...]:
        if prefix is None or chance.random() >= prefix.share:
            return ()
        number = chance.randrange(prefix.count)
        words = self._words(
            self._scale.words_inside(prefix.tokens), random.Random(f"prefix:{self._seed}:{number}")
        )
        return ({"role": "system", "content": f"Context {number}: {words}"},)

    def _replayed(self, row: TraceRow, index: int, chance: random.Random) -> Prompt:
        """Return a prompt of the recorded size; equal blocks get equal words, in their recorded order."""
        left, texts = self._scale.words(row.input_tokens), []
        for block in row.blocks:
            size = min(left, self._scale.words_inside(BLOCK_TOKENS))
            if size > 0:
                words = self._words(max(1, size - 1), random.Random(f"block:{self._seed}:{block}"))
                texts.append(f"b{block} {words}")
            left -= size
        if left > 0:
            texts.append(f"[{self._seed}-{index}] {self._words(left, chance)}")
        asked: JsonObject = {"role": "user", "content": " ".join(texts)}
        return Prompt(messages=(asked,), output_tokens=row.output_tokens)

    def _words(self, count: int, chance: random.Random) -> str:
        text, starts = _pool(self._seed)
        first = chance.randrange(_POOL_WORDS)
        parts = []
        while count > 0:
            last = min(first + count, _POOL_WORDS)
            parts.append(text[starts[first] : starts[last] - 1])
            count, first = count - (last - first), 0
        return " ".join(parts)


class _Source:
    """A class of prompts with its files opened."""

    def __init__(self, kind: PromptClass) -> None:
        self.kind = kind
        self.file = None if kind.file is None else PromptFile(kind.file)
        sizes = (
            kind.pairs
            if kind.pairs_file is None
            else tuple(
                Pair(input_tokens=i, output_tokens=o, weight=w) for i, o, w in read_pairs(kind.pairs_file)
            )
        )
        self._pairs = sizes
        self._sums: list[float] = []
        total = 0.0
        for pair in sizes:
            total += pair.weight
            self._sums.append(total)

    def draw(self, chance: random.Random) -> tuple[int, int]:
        """Draw input and output size, together where they were observed together."""
        if self._pairs:
            pair = chance.choices(self._pairs, cum_weights=self._sums)[0]
            return pair.input_tokens, pair.output_tokens
        return draw_size(self.kind.input_tokens, chance), draw_size(self.kind.output_tokens, chance)


@lru_cache(maxsize=2)
def _pool(seed: int) -> tuple[str, array[int]]:
    """Return the long list of words, and where in it each word starts."""
    words = random.Random(f"words:{seed}").choices(_WORDS, k=_POOL_WORDS)
    starts = array("L", accumulate((len(word) + 1 for word in words), initial=0))
    return " ".join(words) + " ", starts


def draw_size(size: Size, chance: random.Random) -> int:
    """Draw a token count."""
    if size.kind == "constant":
        return size.least
    if size.kind == "normal":
        value = chance.gauss(size.mean, size.stddev)
    else:  # lognormal with the mean and deviation that the tokens themselves shall have
        variance = math.log1p((size.stddev / size.mean) ** 2)
        value = chance.lognormvariate(math.log(size.mean) - variance / 2, math.sqrt(variance))
    return min(size.most, max(size.least, round(value)))


def make_body(
    prompt: Prompt,
    *,
    api: str,
    model: str,
    is_streamed: bool,
    extra: Mapping[str, object],
    history: Sequence[JsonObject] = (),
) -> bytes:
    """Return the JSON body of a request; the workload's own fields win.

    ``api`` is ``chat`` or ``completions``, which knows no messages: there all that was said is one text.

    Raises:
        ConfigError: a message is no text, and is to be part of one.
    """
    said = [*history, *prompt.messages]
    body: JsonObject = {
        "model": model,
        **({"messages": said} if api == "chat" else {"prompt": _as_text(said)}),
        "max_tokens": prompt.output_tokens,
        "temperature": 0,
        "stream": is_streamed,
    }
    if is_streamed:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body | dict(extra), separators=(",", ":")).encode()


def _as_text(messages: Sequence[JsonObject]) -> str:
    texts = [message.get("content") for message in messages]
    if not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"endpoint.api: completions takes texts, and a prompt has {messages[0]!r}"[:300])
    return "\n\n".join(str(text) for text in texts)

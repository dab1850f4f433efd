"""What is asked: the same seed and index give the same bytes, in any worker and any order."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass

from loadtests.workload import Size, Workload
from probes.json_types import JsonObject

_TEXT = (
    "river stone cloud engine market garden letter window bridge number signal forest paper silver motion "
    "winter harbor camera island answer column button travel object circle memory valley planet summer field"
)
_WORDS = tuple(_TEXT.split())
# What a chat template adds to a prompt, roughly; left out of the words so that the size comes out near.
_TEMPLATE_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One request's text and how long its answer may get."""

    text: str
    output_tokens: int


def make_prompt(workload: Workload, *, seed: int, index: int) -> Prompt:
    """Return the prompt of one arrival.

    It begins with the seed and index, so that no server's prefix cache has seen it. Common short words are
    about one token each with today's tokenizers.
    """
    chance = random.Random(f"prompt:{seed}:{index}")
    input_tokens = draw_size(workload.input_tokens, chance)
    output_tokens = draw_size(workload.output_tokens, chance)
    words = chance.choices(_WORDS, k=max(1, input_tokens - _TEMPLATE_TOKENS))
    text = f"[{seed}-{index}] Go on with this list of words: {' '.join(words)}"
    return Prompt(text=text, output_tokens=output_tokens)


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


def make_body(workload: Workload, prompt: Prompt, *, model: str) -> bytes:
    """Return the JSON body of a chat completions request; the workload's own fields win."""
    body: JsonObject = {
        "model": model,
        "messages": [{"role": "user", "content": prompt.text}],
        "max_tokens": prompt.output_tokens,
        "temperature": 0,
        "stream": workload.endpoint.stream,
    }
    if workload.endpoint.stream:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body | workload.endpoint.body, separators=(",", ":")).encode()

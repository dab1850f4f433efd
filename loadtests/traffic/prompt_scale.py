"""How many of our words make a token at this endpoint, found by asking it: its ``usage`` counts for us.

No tokenizer is needed. Two prompts of different length give words per token and what the chat template adds;
two more, of the sizes the workload begins with, show how near that comes.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from loadtests.preflight import ask
from loadtests.spec.workload import EndpointSpec, Workload
from loadtests.traffic.prompts import Prompts, WordScale, make_body
from probes.errors import TargetError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run

EVENT = "load.prompt_scale"
TOLERANCE_SHARE, TOLERANCE_TOKENS = 0.05, 4  # whichever is more
_WORDS_SHORT, _WORDS_LONG = 32, 160
_SIZES_DRAWN = 32
# Far from those of the run, and as many digits as a long run's.
_INDEX_FIRST = 900_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScale:
    """What came of asking."""

    scale: WordScale
    wanted_tokens: tuple[int, ...] = ()
    found_tokens: tuple[int, ...] = ()
    reason: str = ""  # why the endpoint could not be asked; empty: it was


def find_scale(url: str, workload: Workload, endpoint: EndpointSpec, *, model: str, seed: int) -> PromptScale:
    """Ask the endpoint with four short-answered prompts."""
    try:
        short, long = (
            _tokens_in(url, workload, endpoint, _exact(words), model=model, seed=seed, number=number)
            for number, words in enumerate((_WORDS_SHORT, _WORDS_LONG))
        )
        per_word = (long - short) / (_WORDS_LONG - _WORDS_SHORT)
        if not 0.2 < per_word < 20:
            return PromptScale(
                scale=WordScale(),
                reason=f"usage says {short} tokens for {_WORDS_SHORT} words, {long} for {_WORDS_LONG}",
            )
        scale = WordScale(tokens_per_word=per_word, tokens_extra=short - per_word * _WORDS_SHORT)
    except (TargetError, ValueError) as error:
        return PromptScale(scale=WordScale(), reason=str(error))
    return check_scale(url, workload, endpoint, scale, model=model, seed=seed)


def check_scale(
    url: str, workload: Workload, endpoint: EndpointSpec, scale: WordScale, *, model: str, seed: int
) -> PromptScale:
    """Ask an endpoint with two prompts how near a scale comes there, its own or that of another endpoint."""
    wanted = _wanted(workload, seed)
    try:
        found = tuple(
            _tokens_in(
                url, workload, endpoint, _exact(scale.words(size)), model=model, seed=seed, number=2 + number
            )
            for number, size in enumerate(wanted)
        )
    except (TargetError, ValueError) as error:
        return PromptScale(scale=WordScale(), reason=str(error))
    return PromptScale(scale=scale, wanted_tokens=wanted, found_tokens=found)


def _wanted(workload: Workload, seed: int) -> tuple[int, ...]:
    """Return two sizes that the workload asks for: a usual one and a large one."""
    sizes = sorted(Prompts(workload.prompts, seed=seed).sizes(_SIZES_DRAWN))
    return round(statistics.median(sizes)), sizes[-1]


def _exact(words: int) -> WordScale:
    """Return a scale by which any size gives this many words."""
    return WordScale(tokens_per_word=1.0, tokens_extra=float(1 - words))


def _tokens_in(
    url: str,
    workload: Workload,
    endpoint: EndpointSpec,
    scale: WordScale,
    *,
    model: str,
    seed: int,
    number: int,
) -> int:
    prompt = Prompts(workload.prompts, seed=seed, scale=scale).sized(_INDEX_FIRST + number, input_tokens=1)
    body = make_body(prompt, api=endpoint.api, model=model, is_streamed=False, extra=endpoint.body)
    reply = ask(url, endpoint, "POST", endpoint.path, body.decode())
    if reply is None or reply.status != 200:
        raise ValueError("no answer" if reply is None else f"HTTP {reply.status}: {reply.shown()}")
    try:
        tokens = json.loads(reply.body)["usage"]["prompt_tokens"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("the endpoint's answers have no usage") from error
    if type(tokens) is not int or tokens < 1:
        raise ValueError(f"usage.prompt_tokens is {tokens!r}")
    return tokens


def to_event(found: PromptScale, *, name: str | None) -> JsonObject:
    """Return what the timeline keeps; ``name`` is the endpoint's, None: it is the only one."""
    return {
        "endpoint": name,
        "tokens_per_word": found.scale.tokens_per_word,
        "tokens_extra": found.scale.tokens_extra,
        "wanted_tokens": list(found.wanted_tokens),
        "found_tokens": list(found.found_tokens),
        "reason": found.reason,
    }


def judge_prompt_size(run: Run) -> list[Finding]:
    """Prompts are as long as asked for, as the endpoint counts them; without its count nothing is known."""
    last = {event.data.get("endpoint"): event.data for event in run.events_of(EVENT)}
    return [
        _judge(data["wanted_tokens"], data["found_tokens"], data["reason"], name=name)
        for name, data in last.items()
    ]


def _judge(wanted: list[int], found: list[int], reason: str, *, name: str | None) -> Finding:
    near = all(
        abs(f - w) <= max(TOLERANCE_TOKENS, TOLERANCE_SHARE * w) for w, f in zip(wanted, found, strict=True)
    )
    outcome = None if reason else Outcome.PASS if near else Outcome.INCONCLUSIVE
    pairs = ", ".join(f"{f} for {w}" for w, f in zip(wanted, found, strict=True))
    return Finding(
        rule="prompt-size",
        subject="client:load" if name is None else f"client:load@endpoint:{name}",
        outcome=outcome,
        observed=f"not known, words are taken for tokens: {reason}" if reason else f"tokens found: {pairs}",
        expected=f"within {TOLERANCE_SHARE:.0%} or {TOLERANCE_TOKENS} tokens of the size asked for",
        unit="tokens",
        evidence={"wanted_tokens": wanted, "found_tokens": found, "reason": reason},
        next_step=""
        if outcome is not Outcome.INCONCLUSIVE
        else "very short prompts cannot be made exactly; raise input_tokens, or use a prompt file",
    )

"""What the simulated endpoint says: tokens that depend on the prompt alone, in OpenAI's shapes."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtests.endpoint.task_solving import solve, spoil
from loadtests.traffic.tasks import OPENING
from probes.json_types import JsonObject

_TEXT = (
    "load bends before it breaks and a rested node holds what a tired one drops so measure twice then "
    "trust the slower clock because heat noise and chance all sign the same logbook while quiet faults wait"
)
WORDS = tuple(_TEXT.split())
_SUM = re.compile(r"(\d{1,12}) \+ (\d{1,12}) =")
OUTPUT_TOKENS_DEFAULT = 64
_PIECE = re.compile(r"\s*\S+")
_LOOP = (" and", " then", " once", " more")
_SHORT_SHARE = 0.4  # of an answer that stops too early
_ENDLESS_TOKENS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one request wants."""

    prompt: str
    model: str
    input_tokens: int
    output_tokens: int
    is_streamed: bool
    wants_usage: bool
    is_chat: bool = True  # False: of the completions API, which knows no messages


def parse_ask(body: bytes, *, is_chat: bool = True, output_tokens_max: int = 100_000) -> Ask:
    """Read the body of a request for a chat completion, or for a completion of one text.

    Raises:
        ValueError: it is not such a body; the message says what is wrong, for the caller of the API.
    """
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("the body must be an object")
    prompt, template_tokens = _chat_prompt(data) if is_chat else (_text_prompt(data), 0)
    wanted = data.get("max_completion_tokens", data.get("max_tokens", OUTPUT_TOKENS_DEFAULT))
    if not isinstance(wanted, int) or not 1 <= wanted <= output_tokens_max:
        raise ValueError(f"'max_tokens' must be from 1 to {output_tokens_max}, got {wanted!r}")
    options = data.get("stream_options") or {}
    return Ask(
        prompt=prompt,
        model=str(data.get("model", "simulated")),
        input_tokens=len(prompt.split()) + template_tokens,
        output_tokens=wanted,
        is_streamed=bool(data.get("stream")),
        wants_usage=bool(options.get("include_usage")),
        is_chat=is_chat,
    )


def _chat_prompt(data: JsonObject) -> tuple[str, int]:
    """Return all messages as one text, and how many tokens a chat template adds to them."""
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a list that is not empty")
    text = "\n".join(str(m.get("content", "")) for m in messages if isinstance(m, dict))
    return text, 4 * len(messages)


def _text_prompt(data: JsonObject) -> str:
    prompt = data.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise ValueError("'prompt' must be a text that is not empty")
    return prompt


def answer_tokens(prompt: str, *, count: int, is_wrong: bool = False) -> list[str]:
    """Return the tokens of the answer: the result of the first ``A + B =`` in the prompt, then words."""
    start = zlib.crc32(prompt.encode())
    words = [f" {WORDS[(start + 7 * position) % len(WORDS)]}" for position in range(count)]
    match = _SUM.search(prompt)
    if match is not None:
        words[0] = str(int(match[1]) + int(match[2]) + (1 if is_wrong else 0))
    return words


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is said to one request."""

    tokens: Sequence[str]  # said again and again where ``count`` is more
    count: int
    finish_reason: str

    def token(self, position: int) -> str:
        """Return one token."""
        return self.tokens[position % len(self.tokens)]


def make_reply(ask: Ask, *, fault: str | None) -> Reply:
    """Return what to say: the answer to a checked task and no more, else as many tokens as were asked for."""
    if fault == "loop":
        return Reply(tokens=_LOOP, count=_ENDLESS_TOKENS, finish_reason="length")
    answer = solve(ask.prompt) if ask.prompt.startswith(OPENING) else None
    if answer is None:
        tokens = answer_tokens(ask.prompt, count=ask.output_tokens, is_wrong=fault == "wrong")
        reason = "length"
    else:
        whole = _PIECE.findall(spoil(answer) if fault == "wrong" else answer)
        tokens, reason = whole[: ask.output_tokens], "stop" if len(whole) <= ask.output_tokens else "length"
    if fault == "short":
        tokens, reason = tokens[: max(1, int(len(tokens) * _SHORT_SHARE))], "stop"
    return Reply(tokens=tokens, count=len(tokens), finish_reason=reason)


def models_document(model: str) -> JsonObject:
    """Return the answer to ``GET /v1/models``."""
    return {"object": "list", "data": [{"id": model, "object": "model", "owned_by": "overproof"}]}


def error_document(message: str, *, kind: str) -> JsonObject:
    """Return an error in the API's shape."""
    return {"error": {"message": message, "type": kind, "code": None}}


def usage_document(input_tokens: int, output_tokens: int) -> JsonObject:
    """Return the ``usage`` object."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }


def completion_document(ask: Ask, reply: Reply, *, answer_id: str, created: int) -> JsonObject:
    """Return a whole answer that is not streamed."""
    text = "".join(reply.tokens)
    said: JsonObject = {"message": {"role": "assistant", "content": text}} if ask.is_chat else {"text": text}
    return {
        "id": answer_id,
        "object": "chat.completion" if ask.is_chat else "text_completion",
        "created": created,
        "model": ask.model,
        "choices": [{"index": 0, **said, "finish_reason": reply.finish_reason}],
        "usage": usage_document(ask.input_tokens, reply.count),
    }


class StreamText:
    """Renders the events of one streamed answer; what stays the same is rendered once."""

    def __init__(self, ask: Ask, *, answer_id: str, created: int) -> None:
        self._ask = ask
        self._head: JsonObject = {
            "id": answer_id,
            "object": "chat.completion.chunk" if ask.is_chat else "text_completion",
            "created": created,
            "model": ask.model,
        }
        before, _, after = self._event("@", None).rpartition(b"@")
        self._before, self._after = before, after

    def _event(self, text: str, finish_reason: str | None) -> bytes:
        delta = {"content": text} if text else {}
        return self._choice({"delta": delta} if self._ask.is_chat else {"text": text}, finish_reason)

    def _choice(self, said: JsonObject, finish_reason: str | None) -> bytes:
        return self._render(self._head | {"choices": [{"index": 0, **said, "finish_reason": finish_reason}]})

    @staticmethod
    def _render(document: JsonObject) -> bytes:
        return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"

    def role(self) -> bytes:
        """Return the first event of a chat, which names the role and has no content."""
        if not self._ask.is_chat:
            return b""
        return self._choice({"delta": {"role": "assistant", "content": ""}}, None)

    def token(self, text: str) -> bytes:
        """Return the event of one token."""
        return self._before + json.dumps(text).encode()[1:-1] + self._after

    def ending(self, output_tokens: int, *, finish_reason: str = "length") -> Iterator[bytes]:
        """Yield what follows the last token: finish reason, usage where asked for, and ``[DONE]``."""
        yield self._event("", finish_reason)
        if self._ask.wants_usage:
            usage = usage_document(self._ask.input_tokens, output_tokens)
            yield self._render(self._head | {"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

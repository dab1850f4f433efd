"""What a chat completion said, counted event by event, and whether it came whole.

Parsing each event as JSON would cost more than all the rest. So the first event with content is parsed and
taken as a template: a later one that begins and ends with the same bytes, and holds between them nothing that
JSON would have escaped, has the same structure for certain. Everything else is parsed.
"""

from __future__ import annotations

import json

from probes.json_types import JsonObject

DETAIL_CHARS_MAX = 200
CHOICES_MAX = 128  # as in OpenAI's API; more would let a server fill our memory
_SENTINEL = "\x00"
_REPLACEMENT = "\ufffd".encode()
# As vLLM, SGLang and TensorRT-LLM say that they gave an answer up in its middle.
_GIVEN_UP = frozenset(("abort", "error", "cancelled", "timeout"))
# Characters of texts seen before that need no parser: models say the same few thousand tokens over and over.
_known_lengths: dict[bytes, int] = {}
_KNOWN_TEXTS_MAX, _KNOWN_TEXT_BYTES_MAX = 65536, 24


class Completion:
    """The tally of one answer. ``problem`` is an error kind of ``probes.traffic``; None: nothing is wrong."""

    __slots__ = (
        "_after",
        "_before",
        "_keeps_text",
        "_late",
        "chars",
        "events",
        "finish_reasons",
        "garbled",
        "is_done",
        "problem",
        "problem_detail",
        "texts",
        "tokens_cached",
        "tokens_in",
        "tokens_out",
    )

    def __init__(self, *, keeps_text: bool = False) -> None:
        self.texts: list[str] = []  # what was said, where it is to be kept
        self._keeps_text = keeps_text
        self.events = 0  # with content or reasoning
        self.chars = 0
        self.is_done = False
        self.finish_reasons: dict[int, str] = {}  # by the choice's index; empty: not finished yet
        self.garbled = 0  # events with a replacement character, which a model may also say on purpose
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.tokens_cached: int | None = None
        self.problem: str | None = None
        self.problem_detail = ""
        self._late = ""  # content after a finish_reason; judged last: usage says more, where there is one
        self._before: bytes | None = None  # None: no template yet
        self._after = b""

    @property
    def frame(self) -> tuple[bytes, bytes] | None:
        """Return what an event begins and ends with that ``take_text`` may count; None: each is looked at."""
        return None if self._before is None else (b"data: " + self._before, self._after + b"\n\n")

    def take_text(self, text: bytes) -> bool:
        """Count an event that has this between the ends of ``frame``; return whether that could be done."""
        length = _known_lengths.get(text) or _plain_length(text)
        if not length:
            return False
        self.events += 1
        self.chars += length
        if length != len(text) and _REPLACEMENT in text:
            self.garbled += 1
        if self._keeps_text:
            self.texts.append(text.decode())
        return True

    @property
    def choices(self) -> int:
        """Return how many answers to one prompt have been seen, at least the one that was asked for."""
        return max(1, len(self.finish_reasons))

    @property
    def finish_reason(self) -> str:
        """Return why the choices ended, each reason once; empty: one of them, or all, did not."""
        if not all(self.finish_reasons.values()):
            return ""
        return ",".join(dict.fromkeys(self.finish_reasons.values()))

    def take_event(self, data: bytes) -> bool:
        """Count one event; return whether it had content."""
        before = self._before
        if before is not None and data.startswith(before) and data.endswith(self._after):
            text = data[len(before) : len(data) - len(self._after)]
            if len(data) > len(before) + len(self._after) and self.take_text(text):
                return True
        return self._take_parsed(data)

    def _take_parsed(self, data: bytes) -> bool:
        if self.is_done:
            self._note("bad_event", f"after [DONE]: {_shown(data)}")
            return False
        if data == b"[DONE]":
            self.is_done, self._before = True, None  # whatever comes now is looked at
            return False
        document = self._parse(data)
        if document is None:
            return False
        text = self._take_document(document, part="delta")
        if not text:
            return False
        self.events += 1
        self.chars += len(text)
        self.garbled += "\ufffd" in text
        if self._keeps_text:
            self.texts.append(text)
        self._learn(data, document, text)
        return True

    def take_whole(self, body: bytes) -> bool:
        """Count an answer that was not streamed; return whether it had content."""
        document = self._parse(body)
        if document is None:
            return False
        text = self._take_document(document, part="message")
        self.is_done = self.problem is None  # one document has no [DONE]: being whole is its end mark
        self.events, self.chars, self.garbled = int(bool(text)), len(text), int("\ufffd" in text)
        if self._keeps_text:
            self.texts.append(text)
        return bool(text)

    def _parse(self, data: bytes) -> JsonObject | None:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            self._note("bad_event", f"not a JSON object: {_shown(data)}")
            return None
        if document.get("error"):
            self._note("error_event", _shown(data))
            return None
        return document

    def _take_document(self, document: JsonObject, *, part: str) -> str:
        usage = document.get("usage")
        if isinstance(usage, dict):
            self._take_usage(usage)
        choices = document.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            self._note("bad_event", f"no list of choices: {str(document)[:DETAIL_CHARS_MAX]}")
            return ""
        text = ""
        for choice in choices:
            text += self._take_choice(choice, part=part)
        return text

    def _take_choice(self, choice: JsonObject, *, part: str) -> str:
        text = _said(choice, part)
        index = _whole(choice.get("index")) or 0
        if text and self.finish_reasons.get(index):
            self._late = self._late or f"content of choice {index} after its finish_reason: {text}"
        if index in self.finish_reasons or len(self.finish_reasons) < CHOICES_MAX:
            self.finish_reasons.setdefault(index, "")
        else:
            self._note("bad_event", f"more than {CHOICES_MAX} choices")
            return text
        if choice.get("finish_reason"):
            self.finish_reasons[index] = str(choice["finish_reason"])
            self._before = None  # content that follows is looked at, not counted by the template
        return text

    def _take_usage(self, usage: JsonObject) -> None:
        """Take what the server counts; it may say so again and again, but never less than before."""
        before, now = self.tokens_out, _whole(usage.get("completion_tokens"))
        if before is not None and now is not None and now < before:
            self._note("usage_mismatch", f"usage fell from {before} to {now} tokens")
        self.tokens_out = before if now is None else now  # what is left out takes nothing back
        tokens_in = _whole(usage.get("prompt_tokens"))
        self.tokens_in = self.tokens_in if tokens_in is None else tokens_in
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.tokens_cached = _whole(details.get("cached_tokens"))

    def _learn(self, data: bytes, document: JsonObject, text: str) -> None:
        """Keep an event as the template, if putting another text in its place is proven to be just that."""
        choices = document["choices"]
        quoted = b'"%b"' % text.encode("utf-8", "replace")
        if len(choices) != 1 or choices[0].get("finish_reason") or document.get("usage"):
            return
        if not _plain_length(quoted[1:-1]) or data.count(quoted) != 1:
            return
        before, _, after = data.partition(quoted)
        before, after = before + b'"', b'"' + after
        wanted = json.loads(data.replace(quoted, b'"\\u0000"'))
        if _said(wanted["choices"][0], "delta") == _SENTINEL:
            self._before, self._after = before, after

    def _note(self, kind: str, detail: str) -> None:
        """Keep the first problem: what follows is often its consequence."""
        if self.problem is None:
            self.problem, self.problem_detail = kind, detail

    def judge_whole(
        self, *, is_streamed: bool, output_tokens: int, sends_done: bool = True
    ) -> tuple[str | None, str]:
        """Return the error kind and detail of an answer whose body has come to its end as HTTP has it.

        A server that never sends [DONE] (``sends_done`` false) is held to its finish_reason alone.
        """
        if self.problem is not None:
            return self.problem, self.problem_detail
        if is_streamed and sends_done and not self.is_done:
            hint = "; it had its finish_reason: does this server never send one (endpoint.sends_done: false)?"
            detail = f"the stream ended after {self.events} events with content and no [DONE]"
            return "no_done", detail + (hint if self.finish_reason else "")
        if not self.events:
            return "empty", f"no content came (usage: {self.tokens_out} tokens)"
        if not self.finish_reason:
            return "no_finish_reason", f"after {self.events} events with content"
        given_up = _GIVEN_UP.intersection(self.finish_reasons.values())
        if given_up:
            reason = ", ".join(sorted(given_up))
            return "error_event", f"finish_reason {reason!r} after {self.events} events with content"
        kind, detail = self._judge_usage(is_streamed=is_streamed, output_tokens=output_tokens)
        return ("bad_event", self._late) if kind is None and self._late else (kind, detail)

    def _judge_usage(self, *, is_streamed: bool, output_tokens: int) -> tuple[str | None, str]:
        if self.tokens_out is None:
            return None, ""
        if is_streamed and self.events > self.tokens_out:
            return "usage_mismatch", f"{self.events} events with content, usage says {self.tokens_out} tokens"
        limit = output_tokens * self.choices  # usage counts all choices together
        if self.finish_reason == "length" and self.tokens_out != limit:
            return "usage_mismatch", (
                f"finish_reason is 'length' at {self.tokens_out} tokens, the limit was {limit}"
            )
        return None, ""


def _said(choice: JsonObject, part: str) -> str:
    """Return what one choice says: ``text`` of the completions API, else its delta or message."""
    text = choice.get("text")
    return text if isinstance(text, str) else _content(choice.get(part))


def _content(part: object) -> str:
    """Return the text of a delta or message: content, reasoning, or the arguments of tool calls."""
    if not isinstance(part, dict):
        return ""
    text = "".join(
        part[key] for key in ("content", "reasoning_content", "reasoning") if isinstance(part.get(key), str)
    )
    for call in part.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            text += str(function.get("name") or "") + str(function.get("arguments") or "")
    return text


def _plain_length(text: bytes) -> int:
    """Return how many characters a JSON string's inside has; 0: it is empty or needs a real parser."""
    if b'"' in text or b"\\" in text:
        return 0
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return 0
    length = len(decoded) if decoded.isprintable() else 0
    if length and len(text) <= _KNOWN_TEXT_BYTES_MAX and len(_known_lengths) < _KNOWN_TEXTS_MAX:
        _known_lengths[text] = length
    return length


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _shown(data: bytes) -> str:
    return data[:DETAIL_CHARS_MAX].decode("utf-8", "replace")

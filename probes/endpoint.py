"""One question to an inference endpoint, for any Chaos Toolkit experiment: does it answer, whole and in time?

In an experiment file::

    - type: probe
      name: the service answers
      tolerance: {type: regex, target: outcome, pattern: "^pass$"}
      provider:
        type: python
        module: probes.endpoint
        func: chat_answers
        arguments: {endpoint: "http://127.0.0.1:8400", timeout_s: 5}

The answer is asked for as a stream, and counts only with content, a finish reason and ``[DONE]``: a stream
that was cut in the middle is a failure, whatever its status.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.outcome import Outcome

PROMPT = "Say ok."
LINE_BYTES_MAX = 64 * 1024
LINES_MAX = 4096
TEXT_KEPT = 200  # characters of a wrong answer


@dataclass(slots=True)
class Answer:
    """What came back; ``error`` is empty when it came whole."""

    status: int | None = None  # None: no answer head came
    error: str = ""
    replica: str = ""
    ttft_ms: float | None = None  # None: no content came
    e2e_ms: float | None = None
    finish_reason: str = ""
    chars: int = 0


def chat_answers(
    endpoint: str,
    model: str = "",
    prompt: str = PROMPT,
    max_tokens: int = 8,
    timeout_s: float = 5.0,
    api_key_env: str = "",
) -> JsonObject:
    """Ask one chat question and say whether the whole answer came in time.

    Without ``model`` the first of ``/v1/models`` is asked; ``api_key_env`` names the variable with the key.

    Raises:
        ConfigError: the URL cannot be one, or the variable is not set.
    """
    headers = {"content-type": "application/json"} | _key_header(api_key_env)
    began = time.monotonic()
    answer = Answer()
    try:
        chosen = model or _first_model(endpoint, headers, deadline=began + timeout_s)
        body = {"model": chosen, "stream": True, "max_tokens": max_tokens}
        body["messages"] = [{"role": "user", "content": prompt}]
        _ask(endpoint, body, headers, answer, began=began, deadline=began + timeout_s)
    except TimeoutError:
        answer.error = f"no whole answer within {timeout_s:g} s"
    except (OSError, http.client.HTTPException) as error:
        answer.error = f"{type(error).__name__}: {error}"
    except _Wrong as error:
        answer.error = str(error)
    outcome = Outcome.FAIL if answer.error else Outcome.PASS
    return {"outcome": outcome.value, "endpoint": endpoint} | asdict(answer)


class _Wrong(Exception):
    """An answer came, and it is not what was asked for."""


def _key_header(variable: str) -> dict[str, str]:
    if not variable:
        return {}
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"chat_answers: api_key_env names {variable}, which is not set")
    return {"authorization": f"Bearer {key}"}


def _ask(
    endpoint: str, body: JsonObject, headers: dict[str, str], answer: Answer, *, began: float, deadline: float
) -> None:
    with _Link(endpoint, deadline) as link:
        reply = link.request("POST", "/v1/chat/completions", headers, json.dumps(body))
        answer.status, answer.replica = reply.status, reply.getheader("x-replica", "")
        kind = reply.getheader("content-type", "")
        if reply.status != 200 or "text/event-stream" not in kind:
            text = link.read(reply).decode(errors="replace")[:TEXT_KEPT]
            raise _Wrong(f"wanted a 200 with an event stream, got {reply.status} {kind}: {text!r}")
        is_done = _read_stream(link, reply, answer, began)
    answer.e2e_ms = (time.monotonic() - began) * 1000
    for missing, is_there in (
        ("[DONE]", is_done),
        ("a finish reason", answer.finish_reason),
        ("any content", answer.chars),
    ):
        if not is_there:
            raise _Wrong(f"the stream ended without {missing}")


def _read_stream(link: _Link, reply: http.client.HTTPResponse, answer: Answer, began: float) -> bool:
    """Take the stream in; return whether ``[DONE]`` came."""
    for _ in range(LINES_MAX):
        line = link.read_line(reply)
        if not line:
            return False
        if not line.startswith(b"data:"):
            continue
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            return True
        _take(data, answer, began)
    raise _Wrong(f"the stream has more than {LINES_MAX} lines")


def _take(data: bytes, answer: Answer, began: float) -> None:
    try:
        choices = json.loads(data)["choices"]
        text = "".join(
            str(choice["delta"].get("content") or choice["delta"].get("reasoning_content") or "")
            for choice in choices
        )
        reasons = [str(choice["finish_reason"]) for choice in choices if choice.get("finish_reason")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Wrong(f"not an event of a chat stream: {data[:TEXT_KEPT]!r}") from error
    if text and answer.ttft_ms is None:
        answer.ttft_ms = (time.monotonic() - began) * 1000
    answer.chars += len(text)
    answer.finish_reason = reasons[-1] if reasons else answer.finish_reason


def _first_model(endpoint: str, headers: dict[str, str], *, deadline: float) -> str:
    with _Link(endpoint, deadline) as link:
        reply = link.request("GET", "/v1/models", headers, None)
        text = link.read(reply)
    try:
        return str(json.loads(text)["data"][0]["id"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _Wrong(
            f"/v1/models: wanted a list of models, got {reply.status}: {text[:TEXT_KEPT]!r}"
        ) from error


class _Link:
    """One connection whose every wait ends at one deadline (``http.client`` has a time-out per read only)."""

    def __init__(self, endpoint: str, deadline: float) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"chat_answers: endpoint {endpoint!r} is no URL such as http://127.0.0.1:8400")
        self._deadline = deadline
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._http = http.client.HTTPConnection(parts.hostname, parts.port)
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._http = http.client.HTTPSConnection(parts.hostname, parts.port, context=context)
        self._rest = b""
        self._socket: socket.socket | None = None

    def request(
        self, method: str, path: str, headers: dict[str, str], body: str | None
    ) -> http.client.HTTPResponse:
        """Send a request and return the head of its answer."""
        self._http.timeout = self._left_s()
        self._http.connect()
        self._socket = self._http.sock  # the connection forgets it when the answer announces its end
        self._http.request(method, self._prefix + path, body=body, headers=headers)
        self._socket.settimeout(self._left_s())
        return self._http.getresponse()

    def read(self, reply: http.client.HTTPResponse) -> bytes:
        """Return the body of a short answer."""
        body = b""
        while len(body) < LINE_BYTES_MAX and (piece := self._read_piece(reply)):
            body += piece
        return body

    def read_line(self, reply: http.client.HTTPResponse) -> bytes:
        """Return the next line of a stream; empty at its end."""
        while b"\n" not in self._rest and len(self._rest) < LINE_BYTES_MAX:
            piece = self._read_piece(reply)
            if not piece:
                break
            self._rest += piece
        line, newline, self._rest = self._rest.partition(b"\n")
        return line + newline

    def _read_piece(self, reply: http.client.HTTPResponse) -> bytes:
        """Read what one ``recv`` brings: a line that trickles in must not outlast the deadline."""
        assert self._socket is not None
        self._socket.settimeout(self._left_s())
        return reply.read1(LINE_BYTES_MAX)

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def __enter__(self) -> _Link:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

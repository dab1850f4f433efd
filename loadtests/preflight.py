"""Before the load: does anything answer there, and is it an inference endpoint?

An endpoint that refuses, or answers as something else altogether, cannot be tested: that is exit code 3 with
the reason, not a load test that failed. One that answers wrongly only now and then goes on to the load, whose
rows will say so.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from loadtests.reading.tls import make_context, reason_of
from loadtests.spec.workload import EndpointSpec, read_headers
from loadtests.traffic.prompts import Prompt, make_body
from probes.errors import TargetError
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

TRIES = 3
MODEL_DEFAULT = "default"
_SHOWN = 200
_MODELS_SHOWN = 8
_NO_KEY = (401, 403)
_TLS_ALERT = "\x15\x03"  # how a server that wants TLS answers plain HTTP
_REPLICA_HEADER = "x-replica"
_REPLICA_REQUESTS_MAX = 1000
_REPLICAS_WITHIN_S = 30.0
EVENT_REPLICAS = "endpoint.replicas"
_BODY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer, or as much of it as is needed to judge it."""

    status: int
    content_type: str
    body: bytes
    replica: str = ""  # who answered, where a header says so

    def shown(self) -> str:
        """Return the beginning of the body on one line."""
        return " ".join(self.body[:_SHOWN].decode("utf-8", "replace").split())


def check_endpoint(url: str, endpoint: EndpointSpec) -> str:
    """Ask the endpoint one short question and return the model to use.

    Raises:
        TargetError: nothing listens there, or it is no chat completions endpoint.
    """
    model = endpoint.model or next(iter(_models(url, endpoint)), MODEL_DEFAULT)
    question = _question("Say ok.", endpoint, model=model)
    reply = None
    for _ in range(TRIES):
        reply = ask(url, endpoint, "POST", endpoint.path, question)
        if reply is None or not _reason_against(reply, endpoint):
            return model
    assert reply is not None
    others = [] if reply.status in _NO_KEY else _models(url, endpoint)
    hint = "" if not others or model in others else f" (no model {model!r} there, but {_listed(others)})"
    raise TargetError(f"{url}: {_reason_against(reply, endpoint)}{hint}: {reply.shown()!r}")


def _question(text: str, endpoint: EndpointSpec, *, model: str) -> str:
    """Return a body that asks for one token, whole; the workload's own fields win."""
    prompt = Prompt(messages=({"role": "user", "content": text},), output_tokens=1)
    return make_body(prompt, api=endpoint.api, model=model, is_streamed=False, extra=endpoint.body).decode()


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MODELS_SHOWN} more" if len(names) > _MODELS_SHOWN else ""
    return ", ".join(repr(name) for name in names[:_MODELS_SHOWN]) + more


def _reason_against(reply: Reply, endpoint: EndpointSpec) -> str:
    """Return why this cannot be an endpoint to load; empty: it can, or may be having a bad moment."""
    if reply.status in _NO_KEY:
        key = endpoint.api_key_env or endpoint.api_key_file
        return f"HTTP {reply.status}, not authorised; " + (
            f"the key from {key} is refused"
            if key is not None
            else "give a key by endpoint.api_key_env or endpoint.api_key_file"
        )
    if reply.status == 404:
        return f"HTTP 404 for {endpoint.path}; check the address and the model"
    if 300 <= reply.status < 400:
        return f"HTTP {reply.status}, a redirect; give the address that it leads to"
    if 400 <= reply.status < 429 or reply.status in (501, 505):
        return f"HTTP {reply.status}, so every request of this workload would be refused"
    if reply.status == 200 and reply.content_type != "application/json":
        return f"wanted a completion in JSON, got {reply.content_type or 'no content type'}"
    return ""


def _models(url: str, endpoint: EndpointSpec) -> list[str]:
    """Return the models that the endpoint names; none, where it gives no such answer."""
    reply = ask(url, endpoint, "GET", "/v1/models", None)
    try:
        return [str(model["id"]) for model in json.loads(reply.body)["data"]] if reply is not None else []
    except (ValueError, KeyError, TypeError):
        return []  # the question that follows decides


def count_replicas(url: str, endpoint: EndpointSpec, *, model: str, expected: int) -> JsonObject:
    """Ask until as many replicas have answered as are expected, or surely would have; return who did.

    Each question goes over a connection of its own and is a little different, so that neither connections
    nor prefix caches keep a balancer at one replica.
    """
    names: Counter[str] = Counter()
    asked = failed = 0
    deadline = time.monotonic() + _REPLICAS_WITHIN_S
    while len(names) < expected and asked < _requests_for(expected) and time.monotonic() < deadline:
        question = _question(f"Say {asked}.", endpoint, model=model)
        reply = ask(url, endpoint, "POST", endpoint.path, question)
        asked += 1
        if reply is None or reply.status != 200:
            failed += 1
        elif reply.replica:
            names[reply.replica] += 1
    return {"expected": expected, "asked": asked, "failed": failed, "replicas": dict(sorted(names.items()))}


def _requests_for(replicas: int) -> int:
    """Return after how many answers, each from a replica by lot, one is missing by chance in 1 of 1,000."""
    return min(_REPLICA_REQUESTS_MAX, math.ceil(replicas * (math.log(replicas) + math.log(1000))))


def require_replicas(url: str, seen: JsonObject) -> None:
    """Refuse to load a service of which a part is missing: its figures would be those of another service.

    Raises:
        TargetError: fewer replicas answer than are expected. Where no answer names one, it goes on.
    """
    if seen["replicas"] and len(seen["replicas"]) < seen["expected"]:
        raise TargetError(f"{url}: {_replicas_text(seen)}, expected {seen['expected']}; wait until all serve")


def _replicas_text(seen: JsonObject) -> str:
    named = ", ".join(f"{name} ({count})" for name, count in seen["replicas"].items())
    failed = f", {seen['failed']} of them failed" if seen["failed"] else ""
    if not named:
        return f"no answer names its replica by {_REPLICA_HEADER} ({seen['asked']} asked{failed})"
    return f"{len(seen['replicas'])} replicas answered {seen['asked']} requests{failed}: {named}"


def judge_replicas(seen: JsonObject | None, *, expected: int, subject: str) -> Finding:
    """As many replicas served before the load as the workload expects; what nobody names is not known."""
    if seen is None:
        outcome, observed = Outcome.INCONCLUSIVE, "they were not counted"
    else:
        is_enough = len(seen["replicas"]) >= expected
        outcome, observed = Outcome.PASS if is_enough else Outcome.INCONCLUSIVE, _replicas_text(seen)
    return Finding(
        rule="replicas",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"{expected} replicas answer before the load",
        unit="replicas",
        evidence=seen or {},
        next_step=""
        if outcome is Outcome.PASS
        else f"have every replica send a header {_REPLICA_HEADER} with its name, and wait until all serve",
    )


def _link(parts: SplitResult, endpoint: EndpointSpec) -> http.client.HTTPConnection:
    if parts.scheme == "https":
        context = make_context(endpoint.ca_file)
        return http.client.HTTPSConnection(parts.netloc, timeout=endpoint.connect_timeout_s, context=context)
    return http.client.HTTPConnection(parts.netloc, timeout=endpoint.connect_timeout_s)


def ask(url: str, endpoint: EndpointSpec, method: str, path: str, body: str | None) -> Reply | None:
    """Ask once, before the load; None: there is something, but it did not answer whole in time."""
    parts = urlsplit(url)
    headers = {"Content-Type": "application/json"} | read_headers(endpoint)
    link = _link(parts, endpoint)
    try:
        link.connect()
    except ssl.SSLError as error:
        link.close()
        raise TargetError(f"{url}: no TLS there: {reason_of(error, parts.hostname or '')}") from error
    except OSError as error:
        raise TargetError(f"{url}: cannot be reached: {error.strerror or error}; is it running?") from error
    assert link.sock is not None
    link.sock.settimeout(endpoint.timeout_s)
    is_late = threading.Event()
    cut = threading.Timer(endpoint.timeout_s, _cut, [link.sock, is_late])
    try:
        cut.start()
        link.request(method, parts.path.rstrip("/") + path, body=body, headers=headers)
        answer = link.getresponse()
        content_type = answer.getheader("content-type", "").partition(";")[0].strip().lower()
        body_read = answer.read(_BODY_BYTES_MAX)
        if is_late.is_set():
            return None
        return Reply(
            status=answer.status,
            content_type=content_type,
            body=body_read,
            replica=answer.getheader(_REPLICA_HEADER, "")[:100],
        )
    except http.client.BadStatusLine as error:
        if is_late.is_set() or isinstance(error, http.client.RemoteDisconnected):
            return None
        if str(error).startswith(_TLS_ALERT):
            raise TargetError(f"{url}: speaks TLS there, not plain HTTP; give its https address") from error
        raise TargetError(f"{url}: does not speak HTTP: {error}") from error
    except (OSError, http.client.HTTPException):
        return None
    finally:
        cut.cancel()
        link.close()


def _cut(sock: socket.socket, is_late: threading.Event) -> None:
    """End a connection that its reader waits on: a socket's own time-out begins anew with each byte."""
    is_late.set()
    with contextlib.suppress(OSError):  # it has been closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own would have it read on in plain

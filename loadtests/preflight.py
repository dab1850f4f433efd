"""Before the load: does anything answer there, and is it an inference endpoint?

An endpoint that refuses, or answers as something else altogether, cannot be tested: that is exit code 3 with
the reason, not a load test that failed. One that answers wrongly only now and then goes on to the load, whose
rows will say so.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.workload import COMPLETIONS_PATH, EndpointSpec, read_headers
from probes.errors import TargetError

TRIES = 3
MODEL_DEFAULT = "default"
_SHOWN = 200
_BODY_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer, or as much of it as is needed to judge it."""

    status: int
    content_type: str
    body: bytes

    def shown(self) -> str:
        """Return the beginning of the body on one line."""
        return " ".join(self.body[:_SHOWN].decode("utf-8", "replace").split())


def check_endpoint(url: str, endpoint: EndpointSpec) -> str:
    """Ask the endpoint one short question and return the model to use.

    Raises:
        TargetError: nothing listens there, or it is no chat completions endpoint.
    """
    model = endpoint.model or _first_model(url, endpoint)
    body = {"model": model, "messages": [{"role": "user", "content": "Say ok."}], "max_tokens": 1}
    reply = None
    for _ in range(TRIES):
        reply = ask(url, endpoint, "POST", COMPLETIONS_PATH, json.dumps(body | endpoint.body))
        if reply is None or not _reason_against(reply):
            return model
    assert reply is not None
    raise TargetError(f"{url}: {_reason_against(reply)}: {reply.shown()!r}")


def _reason_against(reply: Reply) -> str:
    """Return why this cannot be an endpoint to load; empty: it can, or may be having a bad moment."""
    if reply.status in (401, 403):
        return f"HTTP {reply.status}; check endpoint.api_key_env or endpoint.api_key_file"
    if reply.status == 404:
        return f"HTTP 404 for {COMPLETIONS_PATH}; check the address and the model"
    if 300 <= reply.status < 400:
        return f"HTTP {reply.status}, a redirect; give the address that it leads to"
    if 400 <= reply.status < 429 or reply.status in (501, 505):
        return f"HTTP {reply.status}, so every request of this workload would be refused"
    if reply.status == 200 and reply.content_type != "application/json":
        return f"wanted a chat completion in JSON, got {reply.content_type or 'no content type'}"
    return ""


def _first_model(url: str, endpoint: EndpointSpec) -> str:
    reply = ask(url, endpoint, "GET", "/v1/models", None)
    try:
        return str(json.loads(reply.body)["data"][0]["id"]) if reply is not None else MODEL_DEFAULT
    except (ValueError, KeyError, TypeError, IndexError):
        return MODEL_DEFAULT  # it is no answer that names models; the question that follows decides


def ask(url: str, endpoint: EndpointSpec, method: str, path: str, body: str | None) -> Reply | None:
    """Ask once, before the load; None: there is something, but it did not answer whole in time."""
    parts = urlsplit(url)
    headers = {"Content-Type": "application/json"} | read_headers(endpoint)
    link = http.client.HTTPConnection(parts.netloc, timeout=endpoint.connect_timeout_s)
    try:
        link.connect()
    except OSError as error:
        raise TargetError(f"{url}: cannot be reached: {error.strerror or error}; is it running?") from error
    try:
        assert link.sock is not None
        link.sock.settimeout(endpoint.timeout_s)
        link.request(method, parts.path.rstrip("/") + path, body=body, headers=headers)
        answer = link.getresponse()
        content_type = answer.getheader("content-type", "").partition(";")[0].strip().lower()
        return Reply(status=answer.status, content_type=content_type, body=answer.read(_BODY_BYTES_MAX))
    except http.client.BadStatusLine as error:
        if isinstance(error, http.client.RemoteDisconnected):
            return None
        raise TargetError(f"{url}: does not speak HTTP: {error}") from error
    except (OSError, http.client.HTTPException):
        return None
    finally:
        link.close()

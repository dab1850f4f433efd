"""Where the traffic goes, as a workload file says it, and the secrets that requests there carry."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from probes.errors import ConfigError
from probes.spec import Spec

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADERS_OURS = {
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "accept-encoding",
}
_SECRET_WORDS = ("authorization", "key", "token", "secret", "cookie", "password")


class HeaderFromEnv(Spec):
    """A header's value that is a secret: only the variable's name is recorded."""

    env: Annotated[str, Field(min_length=1, description="environment variable that holds the value")]


class EndpointSpec(Spec):
    """Where the traffic goes. Without ``url`` the built-in simulated endpoint is started for the run."""

    url: Annotated[
        str | None, Field(description="as http://host:8000 or https://host; /v1 at its end may be left out")
    ] = None
    model: Annotated[str | None, Field(description="without it the first that /v1/models names")] = None
    replicas: Annotated[
        int | None, Field(ge=1, le=200, description="how many must serve before the load (x-replica)")
    ] = None
    api_key_env: Annotated[str | None, Field(description="environment variable that holds the key")] = None
    api_key_file: Annotated[str | None, Field(description="file that holds the key")] = None
    ca_file: Annotated[
        str | None, Field(description="https: certificates (PEM) to trust instead of the system's")
    ] = None
    api: Annotated[
        Literal["chat", "completions"],
        Field(description="chat completions, or plain completions of one text"),
    ] = "chat"
    stream: Annotated[bool, Field(description="whether answers are streamed")] = True
    body: dict[str, JsonValue] = Field(
        default_factory=dict, description="more fields for every request's body"
    )
    ignore_eos: Annotated[
        bool, Field(description="ask for answers as long as their limit (vLLM, SGLang)")
    ] = False
    min_tokens: Annotated[int | None, Field(ge=0, description="no answer shorter than this (vLLM)")] = None
    headers: dict[str, str | HeaderFromEnv] = Field(
        default_factory=dict, description="more header fields; a secret one as {env: VARIABLE}"
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="for a whole request")] = 60.0
    connect_timeout_s: Annotated[float, Field(gt=0, le=600, description="for a connection")] = 5.0
    first_byte_timeout_s: Annotated[
        float | None, Field(gt=0, le=3600, description="for the first byte; else timeout_s counts")
    ] = None
    sends_done: Annotated[
        bool, Field(description="whether a stream ends with [DONE]; without it the finish_reason must do")
    ] = True
    batch_invariant: Annotated[
        bool, Field(description="the server promises equal text for equal prompts, whatever else it serves")
    ] = False
    reuse_connections: Annotated[bool, Field(description="keep connections, or one per request")] = True

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None else check_url(url)

    @field_validator("body")
    @classmethod
    def _leaves_ours(cls, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        ours = next((key for key in ("messages", "prompt", "stream", "max_tokens") if key in body), None)
        if ours is not None:
            raise ValueError(f"{ours!r} is set by the workload itself; see prompt and endpoint.stream")
        return body

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str | HeaderFromEnv]) -> dict[str, str | HeaderFromEnv]:
        return _checked_headers(headers)

    @property
    def path(self) -> str:
        """Return what requests are sent to, below the address."""
        return _PATHS[self.api]

    @property
    def extra_body(self) -> dict[str, JsonValue]:
        """Return all fields that the workload adds to each body; those it spells out win."""
        ours: dict[str, JsonValue] = {}
        if self.ignore_eos:
            ours["ignore_eos"] = True
        if self.min_tokens is not None:
            ours["min_tokens"] = self.min_tokens
        return ours | self.body

    @model_validator(mode="after")
    def _has_one_key(self) -> EndpointSpec:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


class NamedEndpointSpec(Spec):
    """One of several endpoints: what is its own; all the rest it shares, as ``endpoint`` says it."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$", description="what reports call it, such as eu-west"
        ),
    ]
    url: Annotated[
        str | None, Field(description="without it a simulated endpoint is started for the run")
    ] = None
    weight: Annotated[
        float, Field(gt=0, le=1e6, description="its part of the arrivals, against the others")
    ] = 1.0
    may_disappear: Annotated[
        bool, Field(description="with fail_over: that it goes away is no failure of its own")
    ] = False
    model: Annotated[str | None, Field(description="instead of the common one")] = None
    replicas: Annotated[int | None, Field(ge=1, le=200, description="instead of the common number")] = None
    api_key_env: Annotated[str | None, Field(description="instead of the common key")] = None
    api_key_file: Annotated[str | None, Field(description="instead of the common key")] = None
    ca_file: Annotated[str | None, Field(description="instead of the common one")] = None
    headers: dict[str, str | HeaderFromEnv] = Field(
        default_factory=dict, description="beside the common ones, or in the place of one of the same name"
    )

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None else check_url(url)

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str | HeaderFromEnv]) -> dict[str, str | HeaderFromEnv]:
        return _checked_headers(headers)

    @model_validator(mode="after")
    def _has_one_key(self) -> NamedEndpointSpec:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self

    def to_endpoint(self, shared: EndpointSpec) -> NamedEndpoint:
        """Return it whole, with what it shares."""
        own: dict[str, object] = {
            key: getattr(self, key)
            for key in ("model", "replicas", "ca_file")
            if getattr(self, key) is not None
        }
        if self.api_key_env is not None or self.api_key_file is not None:
            own |= {"api_key_env": self.api_key_env, "api_key_file": self.api_key_file}
        names = {name.lower() for name in self.headers}
        common = {name: value for name, value in shared.headers.items() if name.lower() not in names}
        own |= {"url": self.url, "headers": common | self.headers}
        return NamedEndpoint(
            name=self.name,
            weight=self.weight,
            may_disappear=self.may_disappear,
            spec=shared.model_copy(update=own),
        )


class FailOverSpec(Spec):
    """The client's own fail-over: a lost endpoint's arrivals go to the others until it answers again."""

    after_failures: Annotated[
        int, Field(ge=1, le=1000, description="unanswered or turned away in a row, and an endpoint is lost")
    ] = 5
    probe_every_s: Annotated[
        float,
        Field(gt=0, le=600, description="between two questions to a lost endpoint; an answer brings it back"),
    ] = 2.0
    within_s: Annotated[
        float | None,
        Field(gt=0, le=3600, description="goodput of the whole is back this long after an endpoint was lost"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEndpoint:
    """An endpoint of a workload, with its part of the arrivals."""

    name: str | None  # None: it is the only one
    spec: EndpointSpec
    weight: float = 1.0
    may_disappear: bool = False

    @property
    def where(self) -> str:
        """Return what stands before its address in a message."""
        return "" if self.name is None else f"{self.name}: "


def check_url(url: str) -> str:
    """Return the base address without a trailing ``/`` or ``/v1``.

    Raises:
        ValueError: it is no address that can be loaded.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("wanted an address such as http://host:8000 or https://host")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("user, query and fragment do not belong in an endpoint's address")
    return url.rstrip("/").removesuffix("/v1")


def check_header(name: str, value: str | HeaderFromEnv) -> None:
    """Refuse a header that would break a request, or put a secret into the record.

    Raises:
        ValueError: it may not stand in a workload.
    """
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() in _HEADERS_OURS:
        raise ValueError(f"{name!r} is set by the client itself")
    if isinstance(value, HeaderFromEnv):
        return
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"the value of {name!r} is not printable ASCII")
    if any(word in name.lower() for word in _SECRET_WORDS):
        raise ValueError(f"{name!r} looks like a secret; write {{env: VARIABLE}} so that it is not recorded")


def _checked_headers(headers: dict[str, str | HeaderFromEnv]) -> dict[str, str | HeaderFromEnv]:
    for name, value in headers.items():
        check_header(name, value)
    return headers


def read_headers(endpoint: EndpointSpec) -> dict[str, str]:
    """Return every header that the workload adds, the key's first; secrets are read here.

    Raises:
        ConfigError: a secret is not there.
    """
    key = read_api_key(endpoint)
    found = {} if key is None else {"Authorization": f"Bearer {key}"}
    for name, value in endpoint.headers.items():
        if isinstance(value, HeaderFromEnv):
            secret = os.environ.get(value.env, "").strip()
            found[name] = _checked_key(secret, f"endpoint.headers.{name}: {value.env}")
        else:
            found[name] = value
    return found


def read_api_key(endpoint: EndpointSpec) -> str | None:
    """Return the key from the environment or the file that the workload names; None: it names none.

    Raises:
        ConfigError: it is not there.
    """
    if endpoint.api_key_env is not None:
        key = os.environ.get(endpoint.api_key_env, "").strip()
        if not key:
            raise ConfigError(f"endpoint.api_key_env: the environment has no {endpoint.api_key_env}")
        return _checked_key(key, f"endpoint.api_key_env: {endpoint.api_key_env}")
    if endpoint.api_key_file is None:
        return None
    path = Path(endpoint.api_key_file).expanduser()
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"endpoint.api_key_file: {path}: cannot be read: {error}") from error
    return _checked_key(key, f"endpoint.api_key_file: {path}")


def _checked_key(key: str, where: str) -> str:
    """Refuse what would break out of its header line; the key itself is shown nowhere."""
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"{where}: does not hold one printable key")
    return key

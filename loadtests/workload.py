"""A workload file: what arrives when, how big it is, where it goes, and what is promised."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from probes.errors import ConfigError
from probes.slo import Slo
from probes.slo_spec import SloSpec, to_slos
from probes.spec import Spec, load_spec

DURATION_S_MAX = 7 * 24 * 3600
COMPLETIONS_PATH = "/v1/chat/completions"


class ArrivalsSpec(Spec):
    """When requests are sent, whatever the server does (open loop)."""

    kind: Annotated[Literal["constant", "poisson"], Field(description="even or exponential gaps")]
    rate_per_s: Annotated[float, Field(gt=0, le=100_000, description="mean arrivals per second")]


class ConstantSize(Spec):
    """Every request has this many tokens."""

    kind: Literal["constant"] = "constant"
    value: Annotated[int, Field(ge=1, le=10_000_000)]


class SpreadSize(Spec):
    """Token counts drawn from a distribution, kept between ``min`` and ``max``."""

    kind: Literal["normal", "lognormal"]
    mean: Annotated[float, Field(gt=0, description="of the tokens themselves, also for lognormal")]
    stddev: Annotated[float, Field(ge=0)]
    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000_000

    @model_validator(mode="after")
    def _is_ordered(self) -> SpreadSize:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


SizeSpec = Annotated[ConstantSize | SpreadSize, Field(discriminator="kind")]


class PromptSpec(Spec):
    """How big the prompts are and how long the answers may get."""

    input_tokens: SizeSpec = ConstantSize(value=128)
    output_tokens: SizeSpec = ConstantSize(value=64)


class EndpointSpec(Spec):
    """Where the traffic goes. Without ``url`` the built-in simulated endpoint is started for the run."""

    url: Annotated[str | None, Field(description="as http://host:8000; /v1 at its end may be left out")] = (
        None
    )
    model: Annotated[str | None, Field(description="without it the first that /v1/models names")] = None
    api_key_env: Annotated[str | None, Field(description="environment variable that holds the key")] = None
    api_key_file: Annotated[str | None, Field(description="file that holds the key")] = None
    stream: Annotated[bool, Field(description="whether answers are streamed")] = True
    body: dict[str, JsonValue] = Field(
        default_factory=dict, description="more fields for every request's body"
    )
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="for a whole request")] = 60.0
    connect_timeout_s: Annotated[float, Field(gt=0, le=600, description="for a connection")] = 5.0
    first_byte_timeout_s: Annotated[
        float | None, Field(gt=0, le=3600, description="for the first byte; else timeout_s counts")
    ] = None
    reuse_connections: Annotated[bool, Field(description="keep connections, or one per request")] = True

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        return None if url is None else check_url(url)

    @field_validator("body")
    @classmethod
    def _leaves_ours(cls, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        ours = next((key for key in ("messages", "stream", "max_tokens") if key in body), None)
        if ours is not None:
            raise ValueError(f"{ours!r} is set by the workload itself; see prompt and endpoint.stream")
        return body

    @model_validator(mode="after")
    def _has_one_key(self) -> EndpointSpec:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


class WorkloadSpec(Spec):
    """A load test."""

    name: Annotated[str, Field(min_length=1, description="shown in reports")]
    arrivals: ArrivalsSpec
    duration_s: Annotated[float, Field(gt=0, le=DURATION_S_MAX, description="time in which requests arrive")]
    prompt: PromptSpec = PromptSpec()
    endpoint: EndpointSpec = EndpointSpec()
    slos: tuple[SloSpec, ...] = ()
    in_flight_max: Annotated[
        int, Field(ge=1, le=100_000, description="an arrival beyond it is dropped, and counted as failed")
    ] = 1000
    failed_share_max: Annotated[
        float | None, Field(gt=0, lt=1, description="without it and without a goodput SLO none may fail")
    ] = None

    @model_validator(mode="after")
    def _can_tell_slos_apart(self) -> WorkloadSpec:
        to_slos(self.slos)
        return self

    def to_workload(self) -> Workload:
        """Return the workload as the rest of the code takes it."""
        return Workload(
            name=self.name,
            arrivals=Arrivals(kind=self.arrivals.kind, rate_per_s=self.arrivals.rate_per_s),
            duration_s=self.duration_s,
            input_tokens=_to_size(self.prompt.input_tokens),
            output_tokens=_to_size(self.prompt.output_tokens),
            endpoint=self.endpoint,
            slos=to_slos(self.slos),
            in_flight_max=self.in_flight_max,
            failed_share_max=self.failed_share_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """An open-loop arrival process."""

    kind: str  # constant or poisson
    rate_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A distribution of token counts."""

    kind: str  # constant, normal or lognormal
    mean: float
    stddev: float
    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A checked workload."""

    name: str
    arrivals: Arrivals
    duration_s: float
    input_tokens: Size
    output_tokens: Size
    endpoint: EndpointSpec
    slos: tuple[Slo, ...]
    in_flight_max: int
    failed_share_max: float | None


def _to_size(spec: ConstantSize | SpreadSize) -> Size:
    if isinstance(spec, ConstantSize):
        return Size(kind="constant", mean=spec.value, stddev=0.0, least=spec.value, most=spec.value)
    return Size(kind=spec.kind, mean=spec.mean, stddev=spec.stddev, least=spec.min, most=spec.max)


def load_workload(path: Path) -> WorkloadSpec:
    """Read and check a workload file.

    Raises:
        ConfigError: it is not one; the message names file, line, key, value, and what would be right.
    """
    return load_spec(path, WorkloadSpec)


def override(spec: WorkloadSpec, *, url: str | None, duration_s: float | None) -> WorkloadSpec:
    """Return the workload with what the command line says instead.

    Raises:
        ConfigError: the address is none.
    """
    if url is not None:
        try:
            endpoint = spec.endpoint.model_copy(update={"url": check_url(url)})
        except ValueError as error:
            raise ConfigError(f"--endpoint {url!r}: {error}") from error
        spec = spec.model_copy(update={"endpoint": endpoint})
    return spec if duration_s is None else spec.model_copy(update={"duration_s": duration_s})


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
    if parts.scheme == "https":
        raise ValueError("https is not supported yet; give the http address behind the TLS")
    if parts.scheme != "http" or not parts.hostname or port == 0:
        raise ValueError("wanted an address such as http://host:8000")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("user, query and fragment do not belong in an endpoint's address")
    return url.rstrip("/").removesuffix("/v1")


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

"""A workload file: what arrives when, how big it is, where it goes, and what is promised."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from loadtests.arrival_spec import ArrivalsSpec, ThinkSpec
from loadtests.arrivals import Arrivals, Think
from loadtests.baseline_spec import BaselineSpec, as_baseline
from loadtests.guard_spec import GuardsSpec
from loadtests.prompt_spec import ConstantSize, PromptClassSpec, PromptSpec, SizeSpec
from loadtests.prompts import PromptClass, Size
from loadtests.stream import BYTES_MAX_DEFAULT, EVENTS_MAX_DEFAULT
from loadtests.task_spec import TasksSpec
from loadtests.tasks import TaskPlan
from probes.errors import ConfigError
from probes.metric import ITL
from probes.slo import Slo
from probes.slo_spec import SloSpec, expand, known_slos, to_slos
from probes.spec import Spec, load_spec
from probes.warm_up import WarmUp

DURATION_S_MAX = 7 * 24 * 3600
COMPLETIONS_PATH = "/v1/chat/completions"
_FILE_KEYS = ("file", "pairs_file")
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


class HangUpSpec(Spec):
    """Clients that leave in the middle of an answer, on purpose and by the seed."""

    share: Annotated[float, Field(gt=0, le=1, description="of the requests")]
    after_events: Annotated[
        int | None, Field(ge=1, description="hang up after this many events with content")
    ] = None
    patience_s: Annotated[
        float | None, Field(gt=0, le=3600, description="hang up this long after sending")
    ] = None

    @model_validator(mode="after")
    def _has_one(self) -> HangUpSpec:
        if (self.after_events is None) == (self.patience_s is None):
            raise ValueError("give either after_events or patience_s")
        return self


class SessionSpec(Spec):
    """Conversations: each arrival begins one, and each turn carries all that was said before."""

    turns: SizeSpec = ConstantSize(value=3)
    think: ThinkSpec = ThinkSpec()


class CalibrationSpec(Spec):
    """How well the client itself has to measure, and up to what; found out right before the load."""

    error_ms_max: Annotated[float, Field(gt=0, le=1000, description="of times, at p99")] = 1.0
    events_per_s: Annotated[
        float | None, Field(gt=0, le=1e6, description="to be certified for; else by arrivals and answers")
    ] = None
    streams: Annotated[
        int | None, Field(ge=1, le=100_000, description="open at once, to be certified for")
    ] = None
    is_skipped: Annotated[
        bool, Field(description="leave it out: promises about times are then not decided")
    ] = False


CALIBRATION_DEFAULT = CalibrationSpec()


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
        ours = next((key for key in ("messages", "stream", "max_tokens") if key in body), None)
        if ours is not None:
            raise ValueError(f"{ours!r} is set by the workload itself; see prompt and endpoint.stream")
        return body

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str | HeaderFromEnv]) -> dict[str, str | HeaderFromEnv]:
        for name, value in headers.items():
            check_header(name, value)
        return headers

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


class LimitsSpec(Spec):
    """How far one answer may go; a server that never ends must cost bounded time and memory."""

    events_max: Annotated[
        int, Field(ge=1, le=100_000_000, description="events with content of one answer")
    ] = EVENTS_MAX_DEFAULT
    bytes_max: Annotated[int, Field(ge=1024, description="bytes of one answer, with what frames it")] = (
        BYTES_MAX_DEFAULT
    )


LIMITS_DEFAULT = LimitsSpec()
GUARDS_DEFAULT = GuardsSpec()


class WarmUpSpec(Spec):
    """What of the beginning is left out of every promise; without it nothing is."""

    seconds: Annotated[float | None, Field(gt=0, le=3600, description="from the first request on")] = None
    is_found: Annotated[bool, Field(description="by MSER-5 over the time to the end of each answer")] = False

    @model_validator(mode="after")
    def _has_one(self) -> WarmUpSpec:
        if (self.seconds is not None) == self.is_found:
            raise ValueError("give either seconds or is_found: true")
        return self

    def to_warm_up(self) -> WarmUp:
        """Return it as the rules take it."""
        return WarmUp(seconds=self.seconds, is_found=self.is_found)


class UntilDecidedSpec(Spec):
    """Go on beyond ``duration_s`` until every SLO is decided; judged so that many looks do no harm."""

    duration_s_max: Annotated[float, Field(gt=0, le=DURATION_S_MAX, description="arrivals end here at last")]


class WorkloadSpec(Spec):
    """A load test."""

    name: Annotated[str, Field(min_length=1, description="shown in reports")]
    arrivals: ArrivalsSpec
    duration_s: Annotated[float, Field(gt=0, le=DURATION_S_MAX, description="time in which requests arrive")]
    prompt: PromptSpec = PromptSpec()
    classes: Annotated[
        tuple[PromptClassSpec, ...], Field(description="several kinds of prompts instead of one")
    ] = ()
    calibrate_prompts: Annotated[
        bool, Field(description="ask the endpoint first how many tokens our words are")
    ] = True
    session: SessionSpec | None = None
    hang_ups: HangUpSpec | None = None
    endpoint: EndpointSpec = EndpointSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    limits: LimitsSpec = LimitsSpec()
    tasks: Annotated[
        TasksSpec | None, Field(description="requests with a known answer, checked when idle and under load")
    ] = None
    guards: GuardsSpec = GuardsSpec()
    allowed_hosts: Annotated[
        tuple[str, ...], Field(description="patterns of host or host:port; any other endpoint is refused")
    ] = ()
    slos: tuple[SloSpec, ...] = ()
    warm_up: Annotated[
        WarmUpSpec | None, Field(description="leave the beginning out; failed requests count all the same")
    ] = None
    until_decided: Annotated[
        UntilDecidedSpec | None, Field(description="an undecided run goes on, at most so long")
    ] = None
    in_flight_max: Annotated[
        int, Field(ge=1, le=100_000, description="an arrival beyond it is dropped, and counted as failed")
    ] = 1000
    failed_share_max: Annotated[
        float | None, Field(gt=0, lt=1, description="without it and without a goodput SLO none may fail")
    ] = None

    baseline: Annotated[
        BaselineSpec | None, Field(description="earlier runs; what got worse since is a failure")
    ] = None

    @field_validator("baseline", mode="before")
    @classmethod
    def _has_baseline(cls, value: object) -> object:
        return as_baseline(value)

    @model_validator(mode="after")
    def _can_tell_slos_apart(self) -> WorkloadSpec:
        known_slos(self.slos)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> WorkloadSpec:
        if self.classes and self.prompt != PromptSpec():  # a plan that travels spells out the default
            raise ValueError("give prompt or classes, not both")
        if self.session is not None and self.arrivals.kind == "trace":
            raise ValueError("a trace says itself what is asked; session does not go with it")
        if self.hang_ups is not None and not self.endpoint.stream:
            raise ValueError("nobody hangs up in the middle of an answer that is not streamed")
        if self.until_decided is not None and (self.session is not None or self.arrivals.kind == "closed"):
            raise ValueError("until_decided needs one schedule of requests: no session, no closed loop")
        if self.until_decided is not None and self.until_decided.duration_s_max <= self.duration_s:
            raise ValueError("until_decided: duration_s_max must be more than duration_s")
        if self.session is not None and self.tasks is not None:
            raise ValueError("a task stands alone; session does not go with tasks")
        if self.endpoint.batch_invariant and (self.tasks is None or self.endpoint.body.get("temperature", 0)):
            raise ValueError("batch_invariant is checked with tasks at temperature 0")
        return self

    @model_validator(mode="after")
    def _has_guarded_slos(self) -> WorkloadSpec:
        slos = known_slos(self.slos)
        if slos is None:
            return self  # checked once its files are read
        metrics = {slo.name: slo.metric for slo in slos}
        for name in self.guards.slos:
            if name not in metrics:
                raise ValueError(
                    f"guards.slos: no SLO is named {name!r}; there are {', '.join(metrics) or 'none'}"
                )
            if metrics[name] == ITL:
                raise ValueError(
                    f"guards.slos: {name!r} has many values per request; guard by goodput instead"
                )
        return self

    def to_workload(self) -> Workload:
        """Return the workload as the rest of the code takes it."""
        return Workload(
            name=self.name,
            arrivals=self.arrivals.to_arrivals(),
            duration_s=self.duration_s
            if self.until_decided is None
            else max(self.duration_s, self.until_decided.duration_s_max),
            first_look_s=None if self.until_decided is None else self.duration_s,
            warm_up=None if self.warm_up is None else self.warm_up.to_warm_up(),
            prompts=tuple(one.prompt.to_class(weight=one.weight) for one in self.classes)
            or (self.prompt.to_class(),),
            session=None
            if self.session is None
            else Sessions(turns=self.session.turns.to_size(), think=self.session.think.to_think()),
            hang_ups=self.hang_ups,
            endpoint=self.endpoint,
            calibration=self.calibration,
            limits=self.limits,
            tasks=None if self.tasks is None else self.tasks.to_plan(),
            guards=self.guards,
            allowed_hosts=self.allowed_hosts,
            slos=to_slos(self.slos),
            in_flight_max=self.in_flight_max,
            failed_share_max=self.failed_share_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Conversations of several turns."""

    turns: Size
    think: Think


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A checked workload."""

    name: str
    arrivals: Arrivals
    duration_s: float
    prompts: tuple[PromptClass, ...]
    endpoint: EndpointSpec
    slos: tuple[Slo, ...]
    in_flight_max: int
    failed_share_max: float | None
    session: Sessions | None = None  # None: every arrival is one request
    hang_ups: HangUpSpec | None = None  # None: nobody hangs up
    calibration: CalibrationSpec = CALIBRATION_DEFAULT
    limits: LimitsSpec = LIMITS_DEFAULT
    tasks: TaskPlan | None = None  # None: no request has a known answer
    guards: GuardsSpec = GUARDS_DEFAULT
    allowed_hosts: tuple[str, ...] = ()  # empty: any
    warm_up: WarmUp | None = None  # None: every request counts
    first_look_s: float | None = (
        None  # it may end from here on, once all is decided; None: it is not looked at
    )

    @property
    def is_chained(self) -> bool:
        """Whether requests follow from the end of others, so that no schedule can hold them all."""
        return self.session is not None or self.arrivals.closed is not None


def load_workload(path: Path) -> WorkloadSpec:
    """Read and check a workload file.

    Raises:
        ConfigError: it is not one; the message names file, line, key, value, and what would be right.
    """
    spec = load_spec(path, WorkloadSpec)
    data, folder = spec.model_dump(exclude_unset=True), path.resolve().parent
    keys = [key for key in ("arrivals", "prompt", "classes", "baseline") if key in data]
    files = {key: _anchored(data[key], folder) for key in keys}
    promises = [promise.model_dump() for promise in expand(spec.slos, folder=folder)]
    try:
        spec = WorkloadSpec.model_validate(data | files | {"slos": promises})
    except ValidationError as error:  # of promises that came from a preset or a file
        raise ConfigError(f"{path}: slos: {error.errors()[0]['msg']}") from error
    if spec.endpoint.ca_file is None:
        return spec
    ca_file = str(folder / Path(spec.endpoint.ca_file).expanduser())
    return spec.model_copy(update={"endpoint": spec.endpoint.model_copy(update={"ca_file": ca_file})})


def _anchored(data: JsonValue, folder: Path) -> JsonValue:
    """Return a spec whose files have absolute names: the run may be started from anywhere."""
    if isinstance(data, list | tuple):
        return [_anchored(item, folder) for item in data]
    if not isinstance(data, dict):
        return data
    return {
        key: str(folder / Path(value).expanduser())
        if key in _FILE_KEYS and isinstance(value, str)
        else _anchored(value, folder)
        for key, value in data.items()
    }


def override(
    spec: WorkloadSpec, *, url: str | None, duration_s: float | None, calibrates: bool = True
) -> WorkloadSpec:
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
    if not calibrates:
        calibration = spec.calibration.model_copy(update={"is_skipped": True})
        spec = spec.model_copy(update={"calibration": calibration})
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

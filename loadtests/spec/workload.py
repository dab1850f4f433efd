"""A workload file: what arrives when, how big it is, where it goes, and what is promised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator, model_validator

from loadtests.reading.stream import BYTES_MAX_DEFAULT, EVENTS_MAX_DEFAULT
from loadtests.spec.arrival import ArrivalsSpec, ThinkSpec
from loadtests.spec.baseline import BaselineSpec, as_baseline
from loadtests.spec.endpoint import EndpointSpec as EndpointSpec
from loadtests.spec.endpoint import FailOverSpec, NamedEndpoint, NamedEndpointSpec, check_url
from loadtests.spec.endpoint import HeaderFromEnv as HeaderFromEnv
from loadtests.spec.endpoint import read_headers as read_headers
from loadtests.spec.expect import ExpectSpec, check_expectation
from loadtests.spec.guard import GuardsSpec
from loadtests.spec.prompt import ConstantSize, PromptClassSpec, PromptSpec, SizeSpec
from loadtests.spec.task import TasksSpec
from loadtests.traffic.arrivals import Arrivals, Think
from loadtests.traffic.prompts import PromptClass, Size
from loadtests.traffic.tasks import TaskPlan
from probes.errors import ConfigError
from probes.metric import ITL
from probes.slo import Slo
from probes.slo_spec import SloSpec, expand, known_slos, to_slos
from probes.spec import Spec, load_spec
from probes.warm_up import WarmUp

DURATION_S_MAX = 7 * 24 * 3600
_FILE_KEYS = ("file", "pairs_file")
_Endpoint = TypeVar("_Endpoint", EndpointSpec, NamedEndpointSpec)


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
    endpoints: Annotated[
        tuple[NamedEndpointSpec, ...],
        Field(description="several instead of one; endpoint says what they share"),
    ] = ()
    fail_over: Annotated[
        FailOverSpec | None, Field(description="of this client; without it each endpoint gets its part")
    ] = None
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
    expect: Annotated[
        ExpectSpec | None,
        Field(description="of the service's capacity: that it follows a spike, and in time"),
    ] = None
    warm_up: Annotated[
        WarmUpSpec | None, Field(description="leave the beginning out; failed requests count all the same")
    ] = None
    until_decided: Annotated[
        UntilDecidedSpec | None, Field(description="an undecided run goes on, at most so long")
    ] = None
    in_flight_max: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            description="of each endpoint; an arrival beyond it is dropped, and counted as failed",
        ),
    ] = 1000
    failed_share_max: Annotated[
        float | None, Field(gt=0, lt=1, description="without it and without a goodput SLO none may fail")
    ] = None

    baseline: Annotated[
        BaselineSpec | None, Field(description="earlier runs; what got worse since is a failure")
    ] = None

    @field_validator("endpoints")
    @classmethod
    def _are_several(
        cls, endpoints: tuple[NamedEndpointSpec, ...], info: ValidationInfo
    ) -> tuple[NamedEndpointSpec, ...]:
        names = [endpoint.name for endpoint in endpoints]
        double = next((name for name in names if names.count(name) > 1), None)
        if len(endpoints) == 1:
            raise ValueError("a single one stands under endpoint, not in a list")
        if double is not None:
            raise ValueError(f"two endpoints are named {double!r}")
        shared = info.data.get("endpoint")
        if endpoints and shared is not None and shared.url is not None:
            raise ValueError("with endpoints each has its own url, and endpoint has none")
        return endpoints

    @field_validator("fail_over")
    @classmethod
    def _has_others(cls, fail_over: FailOverSpec | None, info: ValidationInfo) -> FailOverSpec | None:
        if fail_over is not None and not info.data.get("endpoints", True):
            raise ValueError("there is no other endpoint to go to; give several under endpoints")
        return fail_over

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
        lost = next((endpoint.name for endpoint in self.endpoints if endpoint.may_disappear), None)
        if lost is not None and self.fail_over is None:
            raise ValueError(f"endpoints: {lost!r} may disappear, but only with fail_over is it seen when")
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
    def _can_decide_what_is_expected(self) -> WorkloadSpec:
        if self.expect is None:
            return self
        if self.session is not None or self.until_decided is not None:
            raise ValueError("expect needs one schedule to its end: no session, no until_decided")
        _check_expected(self)
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

    @property
    def named_endpoints(self) -> tuple[NamedEndpoint, ...]:
        """Return each endpoint whole; one without a name where there is only one."""
        several = tuple(endpoint.to_endpoint(self.endpoint) for endpoint in self.endpoints)
        return several or (NamedEndpoint(name=None, spec=self.endpoint),)

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
            endpoints=self.named_endpoints,
            fail_over=self.fail_over,
            calibration=self.calibration,
            limits=self.limits,
            tasks=None if self.tasks is None else self.tasks.to_plan(),
            guards=self.guards,
            allowed_hosts=self.allowed_hosts,
            slos=to_slos(self.slos),
            expect=self.expect,
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
    endpoint: EndpointSpec  # what all of them share
    endpoints: tuple[NamedEndpoint, ...]  # at least one
    slos: tuple[Slo, ...]
    in_flight_max: int  # of each endpoint
    failed_share_max: float | None
    expect: ExpectSpec | None = None  # None: nothing is expected of its capacity
    session: Sessions | None = None  # None: every arrival is one request
    hang_ups: HangUpSpec | None = None  # None: nobody hangs up
    fail_over: FailOverSpec | None = None  # None: each endpoint gets its part, whatever happens
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

    @property
    def has_several(self) -> bool:
        """Whether there are several endpoints."""
        return len(self.endpoints) > 1


_WORKLOADS = Path(__file__).parent.parent / "workloads"


def load_workload(path: Path) -> WorkloadSpec:
    """Read and check a workload file; a bare name such as ``demo`` may be one that comes with overproof.

    Raises:
        ConfigError: it is not one; the message names file, line, key, value, and what would be right.
    """
    path = _shipped(path)
    spec = load_spec(path, WorkloadSpec)
    data, folder = spec.model_dump(exclude_unset=True), path.resolve().parent
    keys = [key for key in ("arrivals", "prompt", "classes", "baseline") if key in data]
    files = {key: _anchored(data[key], folder) for key in keys}
    promises = [promise.model_dump() for promise in expand(spec.slos, folder=folder)]
    try:
        spec = WorkloadSpec.model_validate(data | files | {"slos": promises})
    except ValidationError as error:  # of promises that came from a preset or a file
        raise ConfigError(f"{path}: slos: {error.errors()[0]['msg']}") from error
    return spec.model_copy(
        update={
            "endpoint": _with_ca_file(spec.endpoint, folder),
            "endpoints": tuple(_with_ca_file(endpoint, folder) for endpoint in spec.endpoints),
        }
    )


def _shipped(path: Path) -> Path:
    """Return the file of ours that a bare name means where no file here has that name.

    Raises:
        ConfigError: it is not the name of any.
    """
    if path.suffix or path.name != str(path) or path.exists():
        return path
    ours = sorted(_WORKLOADS.glob("*.yaml"))
    found = next((one for one in ours if one.stem == path.name), None)
    if found is None:
        raise ConfigError(
            f"{path}: cannot be read: there is no such file, nor does overproof come with such a workload; "
            f"those are {', '.join(one.stem for one in ours)}"
        )
    return found


def _with_ca_file(endpoint: _Endpoint, folder: Path) -> _Endpoint:
    if endpoint.ca_file is None:
        return endpoint
    return endpoint.model_copy(update={"ca_file": str(folder / Path(endpoint.ca_file).expanduser())})


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
        ConfigError: the address is none, the workload has several, or its time is too short.
    """
    if url is not None and spec.endpoints:
        raise ConfigError(
            f"--endpoint {url!r}: the workload has {len(spec.endpoints)} endpoints, each with its own url"
        )
    if url is not None:
        try:
            endpoint = spec.endpoint.model_copy(update={"url": check_url(url)})
        except ValueError as error:
            raise ConfigError(f"--endpoint {url!r}: {error}") from error
        spec = spec.model_copy(update={"endpoint": endpoint})
    if not calibrates:
        calibration = spec.calibration.model_copy(update={"is_skipped": True})
        spec = spec.model_copy(update={"calibration": calibration})
    if duration_s is None:
        return spec
    spec = spec.model_copy(update={"duration_s": duration_s})
    try:
        _check_expected(spec)
    except ValueError as error:
        raise ConfigError(f"--duration-s {duration_s:g}: {error}") from error
    return spec


def _check_expected(spec: WorkloadSpec) -> None:
    """Refuse an expectation that the load could never decide.

    Raises:
        ValueError: it says why.
    """
    if spec.expect is not None:
        rate, kind = spec.arrivals.to_arrivals().rate, spec.arrivals.kind
        check_expectation(spec.expect.autoscale, rate=rate, kind=kind, duration_s=spec.duration_s)

"""What a workload expects of the service's capacity: that it follows a spike, and in time."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from loadtests.rules.autoscale import Expectation, Phases, answers_to_exclude_more
from loadtests.traffic.rates import Piece, Wave
from probes.page import is_web_address
from probes.slo_spec import SloSpec, known_slos
from probes.spec import Spec

# After the last moment that counts, samples have to go on a little: what is not seen is not known.
MARGIN_S = 2.0
# How old what a sample says may be, where the workload does not say it.
_WINDOW_S = {"header": 5.0, "page": 0.0, "prometheus": 15.0}
_METRIC_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_Window = Annotated[
    float | None, Field(ge=0, le=600, description="what a sample says is of the last so many seconds")
]
_Url = Annotated[str, Field(description="as http://host:9090; no user, no secret")]
_AuthorizationEnv = Annotated[
    str | None, Field(min_length=1, description="environment variable that holds the Authorization header")
]


class HeaderReplicas(Spec):
    """The different replicas that answered, by ``x-replica``: nothing is asked but what the load asks."""

    kind: Literal["header"]
    window_s: _Window = None


class PageReplicas(Spec):
    """The sum over the samples of one metric on a metrics page, asked for once a second."""

    kind: Literal["page"]
    url: _Url
    metric: str
    labels: dict[str, str] = Field(default_factory=dict, description="only samples with all of these")
    window_s: _Window = None
    authorization_env: _AuthorizationEnv = None

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return check_probe_url(url)

    @field_validator("metric")
    @classmethod
    def _is_metric(cls, metric: str) -> str:
        if not _METRIC_NAME.fullmatch(metric):
            raise ValueError(f"{metric!r} is no name of a metric; labels stand apart, under labels")
        return metric


class PrometheusReplicas(Spec):
    """The one value of a PromQL query, asked for once a second."""

    kind: Literal["prometheus"]
    url: _Url
    query: Annotated[str, Field(min_length=1, description="gives one number, as sum(up{job='llm'})")]
    window_s: _Window = None
    authorization_env: _AuthorizationEnv = None

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return check_probe_url(url)


# The next source, a Kubernetes Deployment's ready replicas, is one more class here and one more line in
# ``replica_watch.READERS``.
ReplicasSpec = Annotated[
    HeaderReplicas | PageReplicas | PrometheusReplicas,
    Field(discriminator="kind", description="where the number of replicas is seen"),
]


class ScaleUpSpec(Spec):
    """Counted from the beginning of the spike."""

    within_s: Annotated[float, Field(gt=0, le=24 * 3600)]
    to_min: Annotated[int | None, Field(ge=2, le=200, description="replicas that serve by then")] = None
    slos: Annotated[
        tuple[SloSpec, ...], Field(description="promises that hold from then to the end of the spike")
    ] = ()

    @model_validator(mode="after")
    def _has_one(self) -> ScaleUpSpec:
        if self.to_min is None and not self.slos:
            raise ValueError("give to_min, slos or both")
        if known_slos(self.slos) is None:
            raise ValueError("write the promises out: presets and files belong under the workload's slos")
        return self


class ReleaseSpec(Spec):
    """Counted from the end of the spike."""

    within_s: Annotated[float, Field(gt=0, le=24 * 3600)]
    to_max: Annotated[int, Field(ge=1, le=199, description="replicas that are left by then")]


class AutoscaleSpec(Spec):
    """Capacity comes with a spike, and goes after it."""

    scale_up: ScaleUpSpec
    release: ReleaseSpec | None = None
    replicas: ReplicasSpec | None = None
    flaps_max: Annotated[
        int | None, Field(ge=0, description="rises after a fall while the rate is level; else only counted")
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> AutoscaleSpec:
        counts = self.scale_up.to_min is not None
        if (counts or self.release is not None or self.flaps_max is not None) and self.replicas is None:
            raise ValueError("replicas: say where they are seen, as {kind: header}")
        if (self.release is not None or self.flaps_max is not None) and not counts:
            raise ValueError("scale_up.to_min: without it nobody knows what there is to release")
        if self.replicas is not None and not counts:
            raise ValueError("scale_up.to_min: replicas are watched, but nothing is expected of them")
        if counts and self.release is not None and self.release.to_max >= (self.scale_up.to_min or 0):
            raise ValueError("release.to_max must be less than scale_up.to_min")
        return self

    @property
    def window_s(self) -> float:
        """Of how many seconds a sample of the replicas speaks."""
        if self.replicas is None:
            return 0.0
        given = self.replicas.window_s
        return _WINDOW_S[self.replicas.kind] if given is None else given

    def to_expectation(self) -> Expectation | None:
        """Return what the rule judges; None: nothing is expected of a number of replicas."""
        if self.scale_up.to_min is None:
            return None
        return Expectation(
            to_min=self.scale_up.to_min,
            up_within_s=self.scale_up.within_s,
            to_max=None if self.release is None else self.release.to_max,
            release_within_s=None if self.release is None else self.release.within_s,
            flaps_max=self.flaps_max,
            window_s=self.window_s,
        )


class ExpectSpec(Spec):
    """What is expected of the service beside its promises to each request."""

    autoscale: AutoscaleSpec


def check_probe_url(url: str) -> str:
    """Return the address of something to ask for the number of replicas.

    Raises:
        ValueError: it is none, or holds a secret.
    """
    if not is_web_address(url):
        raise ValueError(f"{url!r}: wanted an address such as http://host:9090, without user")
    return url.rstrip("/")


def find_phases(rate: tuple[Piece, ...] | Wave) -> Phases | None:
    """Return when the highest of the rates begins and ends; None: there is no such course."""
    if isinstance(rate, Wave) or any(piece.from_per_s != piece.to_per_s for piece in rate):
        return None
    highest, begun_s, spans = max((piece.from_per_s for piece in rate), default=0.0), 0.0, []
    for piece in rate:
        if piece.from_per_s == highest:
            spans.append((begun_s, begun_s + piece.length_s))
        begun_s += piece.length_s
    return Phases(up_s=spans[0][0], idle_s=spans[-1][1]) if spans else None


def check_expectation(
    expected: AutoscaleSpec, *, rate: tuple[Piece, ...] | Wave, kind: str, duration_s: float
) -> None:
    """Refuse an expectation that this load could never decide.

    Raises:
        ValueError: it says what would have to be longer.
    """
    phases = find_phases(rate) if kind in ("spike", "steps") else None
    if phases is None:
        raise ValueError(f"expect.autoscale needs arrivals of kind spike or steps, not {kind!r}")
    up, release, window_s = expected.scale_up, expected.release, expected.window_s
    if phases.up_s <= window_s:
        raise ValueError(
            f"expect.autoscale: the spike begins after {phases.up_s:g} s; more than {window_s:g} s are "
            "needed to see how many replicas there were before"
        )
    spike_s = up.within_s + window_s + MARGIN_S
    if min(phases.idle_s, duration_s) - phases.up_s < spike_s:
        raise ValueError(
            f"expect.autoscale: the spike must last {spike_s:g} s: scale_up.within_s and "
            f"{window_s + MARGIN_S:g} s more"
        )
    if release is None:
        return
    needed_s = phases.idle_s + release.within_s + window_s + MARGIN_S
    if duration_s < needed_s:
        raise ValueError(
            f"expect.autoscale: duration_s must be at least {needed_s:g}: the idle time after the spike is "
            f"release.within_s and {window_s + MARGIN_S:g} s more"
        )
    if expected.replicas is not None and expected.replicas.kind == "header":
        _check_trickle(rate, phases, window_s=window_s, to_max=release.to_max, until_s=needed_s)


def _check_trickle(
    rate: tuple[Piece, ...] | Wave, phases: Phases, *, window_s: float, to_max: int, until_s: float
) -> None:
    """A replica that nobody asks is not seen to be gone: too few requests would look like a release."""
    assert not isinstance(rate, Wave)
    needed, begun_s = answers_to_exclude_more(to_max), 0.0
    lowest = 0.0 if sum(piece.length_s for piece in rate) < until_s else float("inf")
    for piece in rate:
        if begun_s < until_s and begun_s + piece.length_s > phases.idle_s:
            lowest = min(lowest, piece.from_per_s)
        begun_s += piece.length_s
    if lowest * window_s < needed:
        raise ValueError(
            f"expect.autoscale: {lowest:g} requests/s after the spike give {lowest * window_s:g} answers in "
            f"replicas.window_s ({window_s:g} s); {needed} are needed to tell {to_max} replicas from more "
            "by the header: raise one of them, or ask Prometheus"
        )

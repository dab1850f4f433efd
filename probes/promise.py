"""A promise about traffic: what an SLO says, without anything of how it is judged."""

from __future__ import annotations

from dataclasses import dataclass

from probes.errors import ConfigError
from probes.metric import METRICS

GOODPUT = "goodput"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The promise holds stretch by stretch: each of this length is good or bad as a whole."""

    length_s: float
    objective: float  # share of the stretches that have to be good

    def __post_init__(self) -> None:
        if self.length_s <= 0 or not 0 < self.objective < 1:
            raise ConfigError(
                f"window: length_s must be above 0 and objective between 0 and 1, got {self.length_s!r} and "
                f"{self.objective!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A promise. Either a metric keeps a bound for a share of requests, or goodput reaches an objective.

    ``metric: ttft_ms, bound: 500, objective: 0.95`` reads: 95 % of the values are at most 500 ms, which is
    the same as p95 <= 500. ``metric: goodput, objective: 0.99`` reads: 99 % of all requests that the schedule
    wanted were answered whole and met every bound of the other SLOs.
    """

    name: str
    metric: str
    objective: float  # share that has to keep the bound, between 0 and 1
    bound: float | None = None  # in the metric's unit; None: goodput, which has no bound of its own
    confidence: float = 0.95
    window: Window | None = None  # None: the promise is about all requests of the run together
    source: str = ""  # where it comes from, if not from the user's own file

    @property
    def allowed(self) -> float:
        """Share of what is counted, values or stretches, that may be bad."""
        return 1 - (self.objective if self.window is None else self.window.objective)

    def __post_init__(self) -> None:
        if isinstance(self.window, dict):  # ``Slo(**row)`` of a record
            object.__setattr__(self, "window", Window(**self.window))  # type: ignore[unreachable]
        if self.metric != GOODPUT and self.metric not in METRICS:
            raise ConfigError(f"slo {self.name}: metric {self.metric!r} is unknown; one of {known_metrics()}")
        if (self.metric == GOODPUT) != (self.bound is None):
            raise ConfigError(f"slo {self.name}: every metric but goodput needs a bound, goodput takes none")
        if not 0 < self.objective < 1:
            raise ConfigError(f"slo {self.name}: objective must lie between 0 and 1, got {self.objective!r}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(
                f"slo {self.name}: confidence must be from 0.5 to below 1, got {self.confidence!r}"
            )


def known_metrics() -> str:
    """Return the names that an SLO may use, for messages."""
    return ", ".join([*METRICS, GOODPUT])

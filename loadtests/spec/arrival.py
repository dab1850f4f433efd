"""The kinds of arrivals that a workload file may ask for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loadtests.traffic.arrivals import Arrivals, ClosedLoop, Think
from loadtests.traffic.rates import Piece, Wave
from loadtests.traffic.trace import Trace
from probes.spec import Spec

RatePerS = Annotated[float, Field(gt=0, le=100_000, description="mean arrivals per second")]
_RateOrNone = Annotated[float, Field(ge=0, le=100_000, description="arrivals per second")]
_Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]


class ConstantArrivals(Spec):
    """Even gaps."""

    kind: Literal["constant"]
    rate_per_s: RatePerS

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        return Arrivals(rate=_level(self.rate_per_s), process="constant")


class PoissonArrivals(Spec):
    """Exponential gaps: independent users."""

    kind: Literal["poisson"]
    rate_per_s: RatePerS

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        return Arrivals(rate=_level(self.rate_per_s))


class GammaArrivals(Spec):
    """Gamma-distributed gaps: burstier than Poisson above a cv of 1, more even below."""

    kind: Literal["gamma"]
    rate_per_s: RatePerS
    cv: Annotated[
        float | None, Field(gt=0, le=100, description="standard deviation of the gaps / their mean")
    ] = None
    shape: Annotated[
        float | None, Field(gt=0, le=10_000, description="1 / cv²; vLLM calls it burstiness")
    ] = None

    @model_validator(mode="after")
    def _has_one(self) -> GammaArrivals:
        if (self.cv is None) == (self.shape is None):
            raise ValueError("give either cv or shape")
        return self

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        shape = self.shape if self.shape is not None else 1 / (self.cv or 1.0) ** 2
        return Arrivals(rate=_level(self.rate_per_s), process="gamma", shape=shape)


class _Varying(Spec):
    """What rates that change have in common."""

    process: Annotated[Literal["constant", "poisson"], Field(description="even or random gaps")] = "poisson"


class RampArrivals(_Varying):
    """A rate that goes from one value to another along a line, and stays there."""

    kind: Literal["ramp"]
    from_per_s: _RateOrNone
    to_per_s: _RateOrNone
    ramp_s: Annotated[_Seconds, Field(description="how long the change takes")]

    @model_validator(mode="after")
    def _arrives(self) -> RampArrivals:
        if self.from_per_s == self.to_per_s == 0:
            raise ValueError("from_per_s and to_per_s are both 0: nothing would ever arrive")
        return self

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        slope = Piece(length_s=self.ramp_s, from_per_s=self.from_per_s, to_per_s=self.to_per_s)
        return Arrivals(rate=(slope, *_level(self.to_per_s)), process=self.process)


class StepSpec(Spec):
    """A time at one rate."""

    rate_per_s: _RateOrNone
    for_s: _Seconds


class StepsArrivals(_Varying):
    """One rate after the other; after the last step nothing arrives."""

    kind: Literal["steps"]
    steps: Annotated[tuple[StepSpec, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _arrives(self) -> StepsArrivals:
        if not any(step.rate_per_s for step in self.steps):
            raise ValueError("every step has rate 0: nothing would ever arrive")
        return self

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        pieces = tuple(_flat(step.rate_per_s, step.for_s) for step in self.steps)
        return Arrivals(rate=pieces, process=self.process)


class SpikeArrivals(_Varying):
    """A steady rate with another one for a while."""

    kind: Literal["spike"]
    rate_per_s: RatePerS
    spike_per_s: Annotated[_RateOrNone, Field(description="arrivals per second during the spike")]
    at_s: Annotated[float, Field(ge=0, description="when the spike begins")]
    for_s: Annotated[_Seconds, Field(description="how long it lasts")]

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        before = (_flat(self.rate_per_s, self.at_s),) if self.at_s else ()
        spike = _flat(self.spike_per_s, self.for_s)
        return Arrivals(rate=(*before, spike, *_level(self.rate_per_s)), process=self.process)


class DiurnalArrivals(_Varying):
    """A rate that swings like a day, as a sine."""

    kind: Literal["diurnal"]
    rate_per_s: RatePerS
    swing: Annotated[float, Field(ge=0, le=1, description="0.5: between half and 1.5 times the mean")]
    period_s: _Seconds = 86_400.0
    peak_at_s: Annotated[float, Field(ge=0, description="from the start of the run")] = 0.0

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        wave = Wave(
            mean_per_s=self.rate_per_s,
            swing=self.swing,
            period_s=self.period_s,
            peak_at_s=self.peak_at_s,
        )
        return Arrivals(rate=wave, process=self.process)


class TraceArrivals(Spec):
    """Arrivals, sizes and shared prefixes as recorded somewhere; the sizes under prompt do not count."""

    kind: Literal["trace"]
    file: Annotated[str, Field(min_length=1, description="relative to the workload's folder")]
    format: Annotated[
        Literal["azure", "mooncake"], Field(description="Azure LLM inference CSV or Mooncake JSONL")
    ]
    speed: Annotated[float, Field(gt=0, le=1000, description="2: twice as fast as recorded")] = 1.0
    from_s: Annotated[float, Field(ge=0, description="start of the window, in the trace's time")] = 0.0
    to_s: Annotated[float | None, Field(gt=0, description="end of the window; else to the end")] = None

    @model_validator(mode="after")
    def _is_ordered(self) -> TraceArrivals:
        if self.to_s is not None and self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g} is not after from_s {self.from_s:g}")
        return self

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        to_s = math.inf if self.to_s is None else self.to_s
        trace = Trace(path=Path(self.file), form=self.format, speed=self.speed, from_s=self.from_s, to_s=to_s)
        return Arrivals(trace=trace)


class ThinkSpec(Spec):
    """The time between an answer and the same user's next request."""

    kind: Literal["constant", "exponential"] = "constant"
    mean_s: Annotated[float, Field(ge=0, le=86_400)] = 0.0

    def to_think(self) -> Think:
        """Return it as the rest of the code takes it."""
        return Think(kind=self.kind, mean_s=self.mean_s)


class ClosedArrivals(Spec):
    """A closed loop: each user waits for the answer, thinks, and asks again."""

    kind: Literal["closed"]
    users: Annotated[int, Field(ge=1, le=100_000)]
    think: ThinkSpec = ThinkSpec()
    start_over_s: Annotated[float, Field(ge=0, description="users begin evenly over this time")] = 0.0

    def to_arrivals(self) -> Arrivals:
        """Return them as the schedule takes them."""
        return Arrivals(
            closed=ClosedLoop(users=self.users, think=self.think.to_think(), start_over_s=self.start_over_s)
        )


ArrivalsSpec = Annotated[
    ConstantArrivals
    | PoissonArrivals
    | GammaArrivals
    | RampArrivals
    | StepsArrivals
    | SpikeArrivals
    | DiurnalArrivals
    | TraceArrivals
    | ClosedArrivals,
    Field(discriminator="kind", description="when requests are sent"),
]


def _flat(rate_per_s: float, length_s: float) -> Piece:
    return Piece(length_s=length_s, from_per_s=rate_per_s, to_per_s=rate_per_s)


def _level(rate_per_s: float) -> tuple[Piece, ...]:
    """Return one rate to the end; none where it is 0."""
    return (_flat(rate_per_s, math.inf),) if rate_per_s else ()

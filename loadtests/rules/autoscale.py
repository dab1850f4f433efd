"""Did capacity come with the spike, in time, and was it given back? A pure rule over counts of replicas.

A sample says what was seen in a window before it, as bounds: so many replicas at least, so many at most.
Whatever the samples leave open stays open: a moment is known as an interval, and only an interval that lies
wholly on one side of the limit decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

RULE = "autoscale"
# Chance that so many answers, each from a replica by lot, miss one that served all the while; for each look.
DOUBT = 1e-4
REPLICAS_MAX = 200
# Of the arrivals planned for the spike, so many must have been sent when they were wanted.
SPIKE_SHARE_MIN = 0.95
_SILENCE_S_MIN = 3.0  # three samples; a shorter silence hides nothing that a limit of seconds could miss
_SILENCE_SHARE = 0.25  # of the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is expected of the number of replicas."""

    to_min: int
    up_within_s: float
    to_max: int | None  # None: nothing is said about the release
    release_within_s: float | None
    flaps_max: int | None  # None: flaps are counted, not judged
    window_s: float  # a sample speaks of the last so many seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """When the spike begins and ends, from the start of the load."""

    up_s: float
    idle_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the replicas, by bounds."""

    t_s: float  # from the start of the load
    at_least: int
    at_most: int | None  # None: more cannot be excluded


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is in the record."""

    samples: Sequence[Sample]  # in order of time; looks that brought nothing are not among them
    looks: int
    problems: Sequence[str]  # why a look brought nothing, each once
    planned: int  # arrivals of the spike by the schedule
    arrived: int  # of these, those that were sent in time, or met a full or closed door
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """When something came about: within these bounds; never seen: ``upper_s`` is infinite."""

    lower_s: float
    upper_s: float
    silence_s: float  # the longest time without a sure sample, of those that began before the limit

    def decide(self, *, begun_s: float, within_s: float, window_s: float) -> Outcome:
        if self.upper_s - begun_s <= within_s:
            return Outcome.PASS
        hidden_s = max(_SILENCE_S_MIN, window_s, _SILENCE_SHARE * within_s)
        if self.lower_s - begun_s > within_s and self.silence_s <= hidden_s:
            return Outcome.FAIL
        return Outcome.INCONCLUSIVE


@cache
def at_most(answers: int, seen: int) -> int | None:
    """Return how many replicas there may be at most, when so many answers came from ``seen`` of them.

    Each answer is from one of the replicas that serve by lot, which every usual balancer betters.
    """
    if seen < 1:
        return None
    for count in range(seen, REPLICAS_MAX):
        if math.comb(count + 1, seen) * (seen / (count + 1)) ** answers <= DOUBT:
            return count
    return None


def answers_to_exclude_more(replicas: int) -> int:
    """Return how many answers from ``replicas`` of them show that there are no more."""
    return next(n for n in itertools.count(1) if at_most(n, replicas) == replicas)


def judge_autoscale(expected: Expectation, phases: Phases, watch: Watch, *, subject: str) -> Finding:
    """Capacity is there in time after the spike begins, and gone again in time after it ends."""
    samples = list(watch.samples)
    before = [sample for sample in samples if sample.t_s <= phases.up_s]
    loaded = [sample for sample in samples if phases.up_s < sample.t_s <= phases.idle_s]
    idle = [sample for sample in samples if sample.t_s > phases.idle_s]
    doubt = _reason_to_doubt(expected, watch, before)
    enough = _find_enough(expected, phases, loaded)
    released = None if expected.to_max is None else _find_released(expected, phases, idle)
    flaps = _flaps(loaded) + _flaps(idle)
    parts: list[tuple[Outcome, str]] = [_say_up(expected, phases, enough, loaded)]
    if released is not None:
        parts.append(_say_release(expected, phases, released, idle))
    if flaps or expected.flaps_max is not None:
        parts.append(_say_flaps(expected, flaps, samples))
    if doubt:
        outcome, observed = Outcome.INCONCLUSIVE, "; ".join([doubt, *(said for _, said in parts if samples)])
    else:
        outcome = max((part for part, _ in parts), key=_WORSE.index)
        observed = "; ".join(said for _, said in parts)
    return Finding(
        rule=RULE,
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=_render(expected),
        unit="replicas",
        evidence=_evidence(expected, phases, watch, before, loaded, idle, enough, released)
        | {"flaps": flaps},
        next_step=_NEXT_STEPS[outcome],
    )


_WORSE = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)
_NEXT_STEPS = {
    Outcome.PASS: "",
    Outcome.FAIL: "compare the panel of replicas with arrivals and latency: the autoscaler's signal, its "
    "delay, the time to load a model, free nodes; then the limits here",
    Outcome.INCONCLUSIVE: "look at why the replicas were not seen (the header, the query, its address), or "
    "lengthen the spike and the idle time; run it again",
}


def _reason_to_doubt(expected: Expectation, watch: Watch, before: Sequence[Sample]) -> str:
    """Return why the samples can decide nothing; empty: they may."""
    if not watch.samples:
        said = f": {'; '.join(watch.problems[:3])}" if watch.problems else ""
        return f"no replicas were seen in {watch.looks} looks by {watch.source}{said}"
    if not watch.planned or watch.arrived < SPIKE_SHARE_MIN * watch.planned:
        return f"the spike did not come as planned: {watch.arrived} of {watch.planned} arrivals in time"
    if any(sample.at_least >= expected.to_min for sample in before):
        return f"{expected.to_min} replicas served already before the spike: nothing had to scale"
    if not any(sample.at_most is not None and sample.at_most < expected.to_min for sample in before):
        return "it is not known how many replicas served before the spike"
    return ""


def _find_enough(expected: Expectation, phases: Phases, loaded: Sequence[Sample]) -> _Moment:
    return _find(
        begun_s=phases.up_s,
        limit_s=phases.up_s + expected.up_within_s,
        window_s=expected.window_s,
        yes=[s.t_s for s in loaded if s.at_least >= expected.to_min],
        no=[s.t_s for s in loaded if s.at_most is not None and s.at_most < expected.to_min],
    )


def _find_released(expected: Expectation, phases: Phases, idle: Sequence[Sample]) -> _Moment:
    assert expected.to_max is not None
    assert expected.release_within_s is not None
    return _find(
        begun_s=phases.idle_s,
        limit_s=phases.idle_s + expected.release_within_s,
        window_s=expected.window_s,
        yes=[s.t_s for s in idle if s.at_most is not None and s.at_most <= expected.to_max],
        no=[s.t_s for s in idle if s.at_least > expected.to_max],
    )


def _find(
    *, begun_s: float, limit_s: float, window_s: float, yes: Sequence[float], no: Sequence[float]
) -> _Moment:
    """Return when it came about: after the last sample before that says no, by the first that says yes."""
    upper_s = min(yes, default=math.inf)
    refusals = [t_s for t_s in no if t_s < upper_s]
    looks = [begun_s, *refusals, *([upper_s] if math.isfinite(upper_s) else [])]
    return _Moment(
        lower_s=max(begun_s, refusals[-1] - window_s) if refusals else begun_s,
        upper_s=upper_s,
        silence_s=max(
            (after - before for before, after in itertools.pairwise(looks) if before <= limit_s), default=0.0
        ),
    )


def _say_up(
    expected: Expectation, phases: Phases, enough: _Moment, loaded: Sequence[Sample]
) -> tuple[Outcome, str]:
    outcome = enough.decide(begun_s=phases.up_s, within_s=expected.up_within_s, window_s=expected.window_s)
    most = max((sample.at_least for sample in loaded), default=0)
    if math.isfinite(enough.upper_s):
        said = f"{expected.to_min} replicas {_after(enough, phases.up_s)} after the spike began"
    else:
        seen_s = loaded[-1].t_s - phases.up_s if loaded else 0.0
        said = f"at most {most} replicas were seen in the {seen_s:.1f} s watched of the spike"
    return outcome, said + _open(outcome, enough, loaded, phases.up_s + expected.up_within_s)


def _say_release(
    expected: Expectation, phases: Phases, released: _Moment, idle: Sequence[Sample]
) -> tuple[Outcome, str]:
    assert expected.release_within_s is not None
    outcome = released.decide(
        begun_s=phases.idle_s, within_s=expected.release_within_s, window_s=expected.window_s
    )
    if math.isfinite(released.upper_s):
        said = f"down to {expected.to_max} {_after(released, phases.idle_s)} after it ended"
    elif idle:
        said = f"{idle[-1].at_least} replicas still {idle[-1].t_s - phases.idle_s:.1f} s after it ended"
    else:
        said = "no replicas were seen after it ended"
    return outcome, said + _open(outcome, released, idle, phases.idle_s + expected.release_within_s)


def _after(moment: _Moment, begun_s: float) -> str:
    lower_s, upper_s = moment.lower_s - begun_s, moment.upper_s - begun_s
    return f"{upper_s:.1f} s" if upper_s - lower_s < 1.5 else f"between {lower_s:.1f} and {upper_s:.1f} s"


def _open(outcome: Outcome, moment: _Moment, samples: Sequence[Sample], until_s: float) -> str:
    """Say what kept it undecided."""
    if outcome is not Outcome.INCONCLUSIVE:
        return ""
    if not samples or samples[-1].t_s < until_s:
        return " (the watch ended before the time was up)"
    if moment.lower_s < until_s < moment.upper_s < math.inf:
        return " (not decided: the limit lies between)"
    return f" (not decided: nothing certain was seen for up to {moment.silence_s:.1f} s)"


def _say_flaps(expected: Expectation, flaps: int, samples: Sequence[Sample]) -> tuple[Outcome, str]:
    said = f"{flaps} times up again after a fall at a level rate"
    if expected.flaps_max is None:
        return Outcome.PASS, said
    if flaps > expected.flaps_max:
        return Outcome.FAIL, said
    is_seen = any(sample.at_most == sample.at_least for sample in samples)
    return (Outcome.PASS if is_seen else Outcome.INCONCLUSIVE), said


def _flaps(samples: Sequence[Sample]) -> int:
    """Count rises that follow a fall; both have to be certain."""
    level, has_fallen, flaps = 0, False, 0
    for sample in samples:
        if sample.at_least > level:
            flaps += has_fallen
            level, has_fallen = sample.at_least, False
        elif sample.at_most is not None and sample.at_most < level:
            level, has_fallen = sample.at_most, True
    return flaps


def _held(samples: Sequence[Sample], *, until_s: float, longest_s: float) -> Iterator[tuple[Sample, float]]:
    """Yield each sample with the time for which it stands: to the next one, but never for long."""
    following = [*(sample.t_s for sample in samples[1:]), until_s]
    for sample, end_s in zip(samples, following, strict=False):  # of no samples, nothing
        yield sample, max(0.0, min(end_s - sample.t_s, longest_s))


def _evidence(
    expected: Expectation,
    phases: Phases,
    watch: Watch,
    before: Sequence[Sample],
    loaded: Sequence[Sample],
    idle: Sequence[Sample],
    enough: _Moment,
    released: _Moment | None,
) -> JsonObject:
    longest_s = max(_SILENCE_S_MIN, expected.window_s)
    end_s = idle[-1].t_s if idle else phases.idle_s
    under = sum(
        max(0, expected.to_min - sample.at_least) * held_s
        for sample, held_s in _held(loaded, until_s=phases.idle_s, longest_s=longest_s)
    )
    over = sum(
        max(0, sample.at_least - (expected.to_max or expected.to_min)) * held_s
        for sample, held_s in _held(idle, until_s=end_s, longest_s=longest_s)
    )
    base = before[-1].at_least if before else 0
    first = next((sample.t_s for sample in loaded if before and sample.at_least > base), None)
    return {
        "source": watch.source,
        "looks": watch.looks,
        "samples": len(watch.samples),
        "problems": list(watch.problems[:20]),
        "window_s": expected.window_s,
        "replicas_before": base if before else None,
        "replicas_most": max((sample.at_least for sample in loaded), default=None),
        "replicas_last": idle[-1].at_least if idle else None,
        "t_load_up_s": phases.up_s,
        "t_first_scale_s": first,
        "t_enough_s": _bounds(enough),
        "t_idle_s": phases.idle_s,
        "t_released_s": None if released is None else _bounds(released),
        "under_replica_s": round(under, 1),
        "over_replica_s": round(over, 1),
        "spike_planned": watch.planned,
        "spike_arrived": watch.arrived,
    }


def _bounds(moment: _Moment) -> list[float | None]:
    """Return the earliest and the latest time; None: it was never seen."""
    upper_s = round(moment.upper_s, 3) if math.isfinite(moment.upper_s) else None
    return [round(moment.lower_s, 3), upper_s]


def _render(expected: Expectation) -> str:
    said = f"at least {expected.to_min} replicas within {expected.up_within_s:g} s of the spike"
    if expected.to_max is not None:
        said += f", at most {expected.to_max} within {expected.release_within_s:g} s of its end"
    return said + ("" if expected.flaps_max is None else f", at most {expected.flaps_max} flaps")

"""Guards: conditions under which a game day stops at once, and puts everything back.

A guard that cannot see is no guard: too little traffic for longer than its window, or a probe that does not
answer, stops the game day as well, undecided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.impact.recovery import end_of
from probes.breaches import CLIENT_ERRORS
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo, is_good

ERRORS, BURN, PROBE = "errors", "burn", "probe"
SEES, BREACHED, BLIND = "sees", "breached", "blind"
SERIES = "guard"  # one row per look of a probe
PROBE_SLACK_S = 2.0  # until a row is here, on a busy machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One stop condition."""

    name: str
    kind: str  # errors, burn or probe
    limit: float = 0.0  # greatest share of failed requests, or greatest burn
    objective: float = 0.0  # of the error budget that burns
    window_s: float = 0.0  # of traffic
    requests_min: int = 0  # with fewer in its window it is blind
    every_s: float = 0.0  # between two looks of a probe
    timeout_s: float = 0.0  # of one look of a probe
    probe: JsonObject | None = None  # as Chaos Toolkit takes it; None: it looks at traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a guard saw at one moment."""

    state: str  # sees, breached or blind
    observed: str
    used: float | None = None  # share of what it allows; None: it sees nothing, or has no such measure


def look_at_traffic(guard: Guard, requests: Sequence[Request], slos: Sequence[Slo], *, now_ns: int) -> Look:
    """Look at the requests that ended within the window; what failed on the client's side says nothing."""
    since_ns = now_ns - round(guard.window_s * 1e9)
    recent = [r for r in requests if end_of(r) >= since_ns and not r.is_hung_up]
    told = [r for r in recent if r.error not in CLIENT_ERRORS]
    if len(told) < guard.requests_min:
        return Look(state=BLIND, observed=f"{len(told)} requests in {guard.window_s:g} s")
    if guard.kind == ERRORS:
        share = sum(not r.is_good for r in told) / len(told)
        observed = f"{share:.1%} of {len(told)} requests failed in {guard.window_s:g} s"
        state = BREACHED if share > guard.limit else SEES
        return Look(state=state, observed=observed, used=_used(share, guard.limit))
    share = sum(not is_good(r, slos) for r in told) / len(told)
    burn = share / (1 - guard.objective)
    observed = f"the error budget of {guard.objective:.2%} burns {burn:.1f} times as fast as it may; "
    observed += f"{share:.1%} of {len(told)} requests were bad in {guard.window_s:g} s"
    state = BREACHED if burn > guard.limit else SEES
    return Look(state=state, observed=observed, used=_used(burn, guard.limit))


def _used(value: float, limit: float) -> float | None:
    return value / limit if limit else None


def look_at_probe(guard: Guard, row: JsonObject | None, *, now_ns: int) -> Look:
    """Look at what the probe said last."""
    longest_s = guard.every_s + guard.timeout_s
    if row is None:
        return Look(state=BLIND, observed="the probe has not answered yet")
    silent_s = (now_ns - int(row["t_ns"])) / 1e9
    if silent_s > longest_s + PROBE_SLACK_S:
        return Look(state=BLIND, observed=f"the probe has said nothing for {silent_s:.1f} s")
    if row["is_met"] is None:
        return Look(state=BLIND, observed=f"the probe broke: {row['observed']}")
    return Look(state=SEES if row["is_met"] else BREACHED, observed=f"the probe said {row['observed']}")


def describe_limit(guard: JsonObject) -> str:
    """Return what a guard, as the record has it, allows."""
    if guard["kind"] == ERRORS:
        return f"at most {guard['limit']:.1%} failed in {guard['window_s']:g} s"
    if guard["kind"] == BURN:
        return f"at most {guard['limit']:g} times the budget of {guard['objective']:.2%}"
    return "the probe is within tolerance"


def judge_guards(
    guards: Sequence[JsonObject], trips: Sequence[JsonObject], looks: Mapping[str, int]
) -> list[Finding]:
    """A breached guard is a failure; one that could not see leaves undecided what it was to guard."""
    tripped = {str(trip["guard"]): trip for trip in trips}
    return [
        _judge(guard, tripped.get(str(guard["name"])), looks.get(str(guard["name"]), 0)) for guard in guards
    ]


def _judge(guard: JsonObject, trip: JsonObject | None, looks: int) -> Finding:
    if trip is not None:
        outcome = Outcome.FAIL if trip["state"] == BREACHED else Outcome.INCONCLUSIVE
        observed = f"stopped the game day: {trip['observed']}"
    elif not looks:
        outcome, observed = Outcome.INCONCLUSIVE, "nobody looked"
    else:
        outcome, observed = Outcome.PASS, f"kept in {looks} looks"
    next_step = {
        Outcome.FAIL: "see which requests were bad at that time, by replica; begin with a smaller fault",
        Outcome.INCONCLUSIVE: "a guard needs its traffic, or its probe, all the time: raise rate or window",
    }
    return Finding(
        rule="guard",
        subject=f"slo:{guard['name']}",
        outcome=outcome,
        observed=observed,
        expected=describe_limit(guard),
        evidence={"guard": guard, "trip": trip, "looks": looks},
        next_step=next_step.get(outcome, ""),
    )

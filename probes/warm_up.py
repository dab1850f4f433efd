"""Where a run's beginning ends: by a number of seconds, or by a rule (MSER-5) that the data decide.

What is left out is left out for every promise alike, and said. Failed requests are never left out: a service
that fails while it warms up has failed.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from probes.finding import Finding
from probes.metric import METRICS
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import in_time, keep

BATCH = 5
METRIC = "e2e_ms"
SHARE_MAX = 0.5  # where MSER wants to cut later than this, the run has not settled (White 1997)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How the beginning is left out; None twice: it is not."""

    seconds: float | None = None
    is_found: bool = False  # by MSER-5 over the time to the end of each answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A run without its beginning."""

    requests: Sequence[Request]
    left_out: int
    seconds: float  # from the first request on
    has_settled: bool


def leave_out(requests: Sequence[Request], warm_up: WarmUp) -> Settled:
    """Return the requests after the beginning, with those of the beginning that failed."""
    ordered = in_time(requests)
    if not ordered or (warm_up.seconds is None and not warm_up.is_found):
        return Settled(requests=requests, left_out=0, seconds=0.0, has_settled=True)
    begin_ns = ordered[0].t_intended_ns
    has_settled = True
    if warm_up.seconds is not None:
        end_ns = begin_ns + round(warm_up.seconds * 1e9)
    else:
        values, dues_ns = array("d"), array("q")
        for request in ordered:
            for value in METRICS[METRIC].read(request) if request.is_good else ():
                values.append(value)
                dues_ns.append(request.t_intended_ns)
        cut = mser5(values)
        has_settled = cut is not None
        end_ns = dues_ns[cut] if cut else begin_ns
    kept = keep(
        ordered,
        "t_intended_ns",
        "error",
        "is_hung_up",
        where=lambda due_ns, error, is_hung_up: due_ns >= end_ns or not (error is None or is_hung_up),
    )
    return Settled(
        requests=kept,
        left_out=len(ordered) - len(kept),
        seconds=(end_ns - begin_ns) / 1e9,
        has_settled=has_settled and len(kept) > 0,
    )


def mser5(values: Sequence[float]) -> int | None:
    """Return how many values to leave out at the start; None: no end of the beginning is in sight.

    The cut is where the mean of the rest, in batches of five, is known best: the sum of squares of the rest
    over the square of its length is least.
    """
    means = [sum(values[i : i + BATCH]) / BATCH for i in range(0, len(values) - len(values) % BATCH, BATCH)]
    if len(means) < 10:
        return None
    best, cut = float("inf"), 0
    total = square = 0.0
    for position in range(len(means) - 1, -1, -1):
        total, square = total + means[position], square + means[position] ** 2
        rest = len(means) - position
        if rest < 5:
            continue
        error = (square - total * total / rest) / rest**2
        if error <= best:
            best, cut = error, position
    return cut * BATCH if cut <= SHARE_MAX * len(means) else None


def judge_warm_up(settled: Settled, warm_up: WarmUp, *, subject: str) -> Finding:
    """Say what was left out; a run that never settles shows nothing of the steady state."""
    rule = f"the first {warm_up.seconds:g} s" if warm_up.seconds is not None else f"MSER-5 over {METRIC}"
    return Finding(
        rule="warm-up",
        subject=subject,
        outcome=Outcome.PASS if settled.has_settled else Outcome.INCONCLUSIVE,
        observed=f"left out by {rule}: {settled.left_out} requests of the first {settled.seconds:.1f} s"
        if settled.has_settled
        else f"no end of the warm-up is in sight by {rule}",
        expected="the beginning ends within the first half of the run; failed requests count all the same",
        unit="s",
        evidence={"left_out": settled.left_out, "seconds": settled.seconds},
        next_step="" if settled.has_settled else "run longer, or state warm_up: {seconds: N}",
    )

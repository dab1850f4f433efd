"""The study of find-max's steps: how often one step, looked at again and again, is decided wrongly.

Simulated steps at rates around the true limit go through the rule that judges a step, at every look that a
real one has. ``make study-find-max-steps`` writes docs/studies/find-max-steps.md.
"""

from __future__ import annotations

import argparse
import datetime
import random
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loadtests.rules.deciding import ended_so_far
from loadtests.search.find_max import FIRST_LOOK_S, GROWTH, STEP_SHARE, WARM_UP_S
from loadtests.search.rate_search import STEPS_MAX
from loadtests.search.rate_step import Backlog, arrivals_needed, backlog_of_counts, judge_step, variance_of
from loadtests.traffic.arrivals import Arrivals
from probes.outcome import Outcome
from probes.promise import Slo
from probes.request import Request
from probes.warm_up import WarmUp, leave_out
from tests.studies.batch_model import Served, Server, poisson, rows_of, serve, true_limit

REPORT = Path(__file__).parents[2] / "docs" / "studies" / "find-max-steps.md"
SERVER = Server(slots=32, tokens=16, step_ms=20.0)
OBJECTIVE, CONFIDENCE, PRECISION = 0.95, 0.95, 0.05
BOUNDS_MS = (80.0, 300.0)  # first tokens in time up to some 83 % and 96 % of the capacity
RATIOS = (0.9, 0.98, 1.0, 1.02, 1.1, 1.3)
WITHIN_S = 300.0  # of a search; a step may take its share of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one step ended."""

    outcome: Outcome
    after_s: float


def step(rate_per_s: float, seed: int, *, bound_ms: float) -> Ended:
    """Take one step: look as often as find-max does until it is decided, or its time is over."""
    length_s = WITHIN_S * STEP_SHARE
    served = serve(SERVER, poisson(rate_per_s, requests=round(rate_per_s * length_s * 1.1), seed=seed))
    by_arrival = sorted(served, key=lambda one: one.arrived_s)
    rows = rows_of(SERVER, served)
    slo = Slo(
        name="first",
        metric="ttft_ms",
        objective=OBJECTIVE,
        bound=bound_ms,
        confidence=1 - (1 - CONFIDENCE) / STEPS_MAX,
    )
    look_s = FIRST_LOOK_S
    while look_s <= length_s:
        outcome = _look(slo, rows, by_arrival, look_s)
        if outcome is not Outcome.INCONCLUSIVE:
            return Ended(outcome=outcome, after_s=look_s)
        look_s *= GROWTH
    return Ended(outcome=Outcome.INCONCLUSIVE, after_s=length_s)


def _look(slo: Slo, rows: Sequence[Request], served: Sequence[Served], at_s: float) -> Outcome:
    ended = ended_so_far([row for row, one in zip(rows, served, strict=True) if one.ended_s <= at_s])
    return judge_step(
        (slo,),
        leave_out(ended, WarmUp(seconds=WARM_UP_S)).requests,
        _backlog(served, at_s),
        variance=variance_of(Arrivals(), ended),
        arrived_min=arrivals_needed(PRECISION),
        precision=PRECISION,
    )


def _backlog(served: Sequence[Served], at_s: float) -> Backlog:
    arrived, left = [one.arrived_s for one in served], sorted(one.ended_s for one in served)
    counts = []
    for second in range(1, int(at_s) + 1):
        came = bisect_right(arrived, second)
        counts.append((came, came - bisect_right(left, second)))
    return backlog_of_counts(counts)


def study(ratio: float, bound_ms: float, limit: float, *, steps: int, processes: int) -> Counter[Outcome]:
    """Take so many steps at one rate."""
    chance = random.Random(f"{ratio} {bound_ms}")
    seeds = [chance.randrange(2**40) for _ in range(steps)]
    with ProcessPoolExecutor(processes) as pool:
        ended = pool.map(partial(step, limit * ratio, bound_ms=bound_ms), seeds, chunksize=10)
        return Counter(one.outcome for one in ended)


def main() -> int:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500, help="of each row")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for bound_ms in BOUNDS_MS:
        limit = true_limit(SERVER, bound_ms=bound_ms, objective=OBJECTIVE)
        for ratio in RATIOS:
            found = study(ratio, bound_ms, limit, steps=options.steps, processes=options.processes)
            told = " | ".join(f"{found[o] / options.steps:.1%}" for o in Outcome)
            rows.append(f"| {bound_ms:g} ms | {limit:.1f} | {ratio} | {told} |")
            print(rows[-1], flush=True)  # noqa: T201  (it takes minutes)
    REPORT.write_text(_report(rows, options.steps), encoding="utf-8")
    return 0


def _report(rows: Sequence[str], steps: int) -> str:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    doubt = (1 - CONFIDENCE) / STEPS_MAX
    return "\n".join(
        [
            "# Steps of find-max",
            "",
            f"`make study-find-max-steps`, {today}; {steps} simulated steps in each row: Poisson arrivals",
            f"at an endpoint with {SERVER.slots} slots ({SERVER.capacity_per_s:g} requests/s at most),",
            f"{OBJECTIVE:.0%} of first tokens within the bound, which its model of batching keeps up to the",
            "limit in the long run. Each step begins empty and is looked at after",
            f"{FIRST_LOOK_S:g} s and then whenever it has become {GROWTH - 1:.0%} longer, for",
            f"{WITHIN_S * STEP_SHARE:g} s at most. A search takes up to {STEPS_MAX} steps that are right",
            f"together at {CONFIDENCE:.0%}, so each may be wrong in {doubt:.1%}.",
            "",
            "| bound | true limit /s | rate / limit | PASS | INCONCLUSIVE | FAIL |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

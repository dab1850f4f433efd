"""The study of load verdicts: how often PASS and FAIL are wrong, and how often a clear case is decided.

Simulated latencies with an exponential tail, whose neighbours correlate, go through the functions that judge
a recorded run, from the tally of its requests on. ``make study-load`` writes docs/studies/load-verdicts.md.
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist

from probes.dependence import inflation_of_neighbours
from probes.evidence import weigh
from probes.outcome import Outcome
from probes.promise import Slo
from probes.sample_size import requests_needed
from probes.tally import Tally

REPORT = Path(__file__).parents[2] / "docs" / "studies" / "load-verdicts.md"
RHOS = (0.0, 0.5, 0.9, 0.99)
TRUTHS = (0.8, 1.0, 1.2)
SHORT = (0.1, 0.3)  # of the announced size: the limit is held there too
LOOK_GROWTH = 1.25  # a run that goes on until it is decided is looked at again when so much longer


@dataclass(frozen=True, kw_only=True)
class Case:
    """Runs of one kind."""

    objective: float
    rho: float
    truth: float  # the percentile, as a share of its limit
    part: float = 1.0  # of the announced size
    is_peeked: bool = False
    is_bursty: bool = False  # breaches come in bursts, instead of from neighbours that correlate

    @property
    def slo(self) -> Slo:
        """The promise."""
        return Slo(name="first", metric="ttft_ms", objective=self.objective, bound=1.0)

    @property
    def announced(self) -> int:
        """The size told before the run, with the correlation that an earlier run would have shown."""
        inflation = inflation_of_neighbours(self.rho, self.slo.allowed)
        return requests_needed(self.slo, inflation=inflation, is_peeked=self.is_peeked)

    @property
    def size(self) -> int:
        """Requests of a run."""
        return round(self.announced * self.part)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of the runs of one case."""

    case: Case
    runs: int
    passed: int
    failed: int
    median: int  # requests at the end of a run


def heights(rho: float, count: int, chance: random.Random) -> list[float]:
    """Return normal values whose neighbours correlate."""
    if not rho:
        return [chance.gauss(0, 1) for _ in range(count)]
    rest, value, gauss = math.sqrt(1 - rho * rho), chance.gauss(0, 1), chance.gauss
    found = []
    for _ in range(count):
        value = rho * value + rest * gauss(0, 1)
        found.append(value)
    return found


def bursts(bad: float, count: int, chance: random.Random) -> list[float]:
    """Return values of which a share breaks the bound, four of five of them in bursts of 20 on average."""
    values, is_burst = [], False
    into = bad / (1 - bad) / 20
    for _ in range(count):
        is_burst = chance.random() < (0.95 if is_burst else into)
        values.append(2 + chance.random() if is_burst else chance.random())
    return values


def tally(case: Case, chance: random.Random) -> Tally:
    """Return one run as the rules take it. Ranks and breaches are all that they look at."""
    bad = case.slo.allowed ** (1 / case.truth)  # of latencies with an exponential tail
    if case.is_bursty:
        values, limit = bursts(bad, case.size, chance), 1.0
    else:
        values, limit = heights(case.rho, case.size, chance), _height(bad)
    broken = [int(value > limit) for value in values]
    return Tally(certain_each=broken, possible_each=broken, total_each=[1] * len(values), scores=values)


def _height(share: float) -> float:
    return NormalDist().inv_cdf(1 - share)


def looks(size: int, *, is_peeked: bool) -> Iterator[int]:
    """Yield after how many requests a run is judged."""
    if is_peeked:
        look = 59.0
        while look < size:
            yield round(look)
            look *= LOOK_GROWTH
    yield size


def judge(case: Case, seed: int) -> tuple[Outcome, int]:
    """Return the outcome of one run, and after how many requests it stood."""
    whole = tally(case, random.Random(f"{case} {seed}"))
    outcome, look = Outcome.INCONCLUSIVE, 0
    for look in looks(case.size, is_peeked=case.is_peeked):
        evidence = weigh(case.slo, whole.part(0, look), is_peeked=case.is_peeked)
        outcome = evidence.outcome(confidence=case.slo.confidence)
        if outcome is not Outcome.INCONCLUSIVE:
            break
    return outcome, look


Judge = Callable[[int], tuple[Outcome, int]]


def study(case: Case, runs: int, *, processes: int = 1) -> Row:
    """Judge so many runs of one case."""
    one: Judge = partial(judge, case)
    if processes == 1:
        found = [one(seed) for seed in range(runs)]
    else:
        with ProcessPoolExecutor(processes) as pool:
            found = list(pool.map(one, range(runs), chunksize=20))
    outcomes = [outcome for outcome, _ in found]
    return Row(
        case=case,
        runs=runs,
        passed=outcomes.count(Outcome.PASS),
        failed=outcomes.count(Outcome.FAIL),
        median=sorted(look for _, look in found)[runs // 2],
    )


def cases() -> Iterator[Case]:
    """Yield what is studied."""
    for objective in (0.95, 0.99):
        for rho in RHOS[:3]:  # p99 at 0.99 would take 110,000 requests a run
            for truth in TRUTHS:
                yield Case(objective=objective, rho=rho, truth=truth)
    for rho in RHOS:
        for part in SHORT:
            yield Case(objective=0.95, rho=rho, truth=1.0, part=part)
    for rho in RHOS[:3]:
        for truth in TRUTHS:
            yield Case(objective=0.95, rho=rho, truth=truth, is_peeked=True)
    for part in (1.0, 10.0):
        yield Case(objective=0.95, rho=0.0, truth=1.0, part=part, is_bursty=True)
    for truth in TRUTHS:  # most of the study's time
        yield Case(objective=0.95, rho=0.99, truth=truth)


def render(rows: list[Row], took_s: float) -> str:
    """Return the study's page."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    plain = [row for row in rows if not row.case.is_bursty]
    at_limit = [row for row in plain if row.case.truth == 1.0]
    away = [row for row in plain if row.case.truth != 1.0]
    decided = [(row.passed if row.case.truth < 1 else row.failed) / row.runs for row in away]
    lines = [
        "# Study: load verdicts",
        "",
        f"`make study-load`, {today}, {took_s:.0f} s, {rows[0].runs} runs in each row. Latencies with an",
        "exponential tail whose neighbours correlate (ρ) go through the functions that judge a recorded run,",
        "from the tally of its requests on. The percentile promised lies at 0.8, 1.0 and 1.2 of its limit.",
        "At 1.0 either verdict is wrong; stated is at most 5 % of each. Runs are as long as announced before",
        "them, with the correlation that an earlier run would show; at the limit also 0.1 and 0.3 of it.",
        f"Chance alone lifts a true 5 % above {_scatter(rows[0].runs):.1%} in one of a thousand rows.",
        "",
        f"At the limit the worst row has {max(r.passed / r.runs for r in at_limit):.1%} PASS and "
        f"{max(r.failed / r.runs for r in at_limit):.1%} FAIL. 20 % away from it, the row that decides least",
        f"often is right in {min(decided):.1%} of runs.",
        "",
        "| promise | neighbours | truth | judged | requests | PASS | FAIL | undecided |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        case = row.case
        cells = (
            f"p{case.objective * 100:g}",
            "in bursts" if case.is_bursty else f"ρ {case.rho:g}",
            f"{case.truth:g}",
            "at every look" if case.is_peeked else "at the end",
            f"{case.size} (median {row.median})" if case.is_peeked else f"{case.size}",
            f"{row.passed / row.runs:.1%}",
            f"{row.failed / row.runs:.1%}",
            f"{1 - (row.passed + row.failed) / row.runs:.1%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_LIMITS]) + "\n"


_LIMITS = (
    "*In bursts*: the breaches come in bursts of 20 requests on average, and nothing between them shows that",
    "there are such. A run that meets none of them by luck is a PASS; nothing in that run can know better.",
    "It has to be long beside the time from one burst to the next: the longer row is ten times as long.",
)


def _scatter(runs: int) -> float:
    return 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / runs)


def main() -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="of each row")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=REPORT, help="page that is written")
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    for case in cases():
        rows.append(study(case, options.runs, processes=options.processes))
        row = rows[-1]
        print(  # noqa: T201
            f"{time.monotonic() - began:.0f} s: {case} {case.size}: pass {row.passed} fail {row.failed} "
            f"of {row.runs}, median {row.median}",
            file=sys.stderr,
        )
        if any(row.case.truth != 1.0 for row in rows) and any(row.case.truth == 1.0 for row in rows):
            options.out.write_text(render(rows, time.monotonic() - began), encoding="utf-8")


if __name__ == "__main__":
    main()

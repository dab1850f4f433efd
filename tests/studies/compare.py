"""The study of comparing runs: how often like runs are called worse, and what of a real change is found.

Simulated runs through the same code as ``overproof compare``: log-normal latencies whose neighbours
correlate, shifted as a whole from run to run. ``make study-compare`` writes docs/studies/compare.md.
"""

from __future__ import annotations

import argparse
import datetime
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probes.outcome import Outcome
from reports.compare import Direction, compare
from reports.figure_kind import KINDS
from reports.run_figures import RunFigures
from tests.reports.load_runs import Truth, figures

REPORT = Path(__file__).parents[2] / "docs" / "studies" / "compare.md"
REQUESTS = 600
RHOS = (0.0, 0.5, 0.9, 0.99)
BASES = (1, 3, 5, 10)
SCALES = (1.0, 1.1, 1.25)
POOL = 40  # runs of each kind; comparisons draw from them
FIGURE = "itl_ms_p50"
MARGIN = KINDS[FIGURE].margin
# Deviation between runs, and correlations of neighbours: the last breaks what one base run is taken to show.
NOISE = ((0.01, RHOS), (0.03, RHOS), (0.10, (0.0,)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of the comparisons of one kind."""

    between: float
    rho: float
    base: int
    scale: float
    trials: int
    worse: int  # comparisons in which any figure was WORSE
    better: int  # in which any was BETTER
    figure: Counter[Direction]  # of one figure, for what it decides


def pool(truth: Truth, first_seed: int) -> list[RunFigures]:
    """Return simulated runs of one truth."""
    return [figures(truth, first_seed + number) for number in range(POOL)]


def study(between: float, rho: float, trials: int) -> list[Row]:
    """Return the rows of one kind of noise."""
    like = pool(Truth(between=between, rho=rho, requests=REQUESTS, gaps=3), 1)
    rows = []
    for scale in SCALES:
        truth = Truth(scale=scale, between=between, rho=rho, requests=REQUESTS, gaps=3)
        changed = like if scale == 1.0 else pool(truth, 10_001)
        rows += [_row(like, changed, base=base, scale=scale, trials=trials, truth=truth) for base in BASES]
    return rows


def _row(
    like: Sequence[RunFigures],
    changed: Sequence[RunFigures],
    *,
    base: int,
    scale: float,
    trials: int,
    truth: Truth,
) -> Row:
    chance = random.Random(f"{truth} {base}")
    worse = better = 0
    found: Counter[Direction] = Counter()
    for _ in range(trials):
        run = chance.choice(list(changed))
        before = chance.sample([one for one in like if one.id != run.id], base)
        comparison = compare(before, run)
        worse += comparison.outcome is Outcome.FAIL
        better += any(change.direction is Direction.BETTER for change in comparison.changes)
        found.update(change.direction for change in comparison.changes if change.name == FIGURE)
    return Row(
        between=truth.between,
        rho=truth.rho,
        base=base,
        scale=scale,
        trials=trials,
        worse=worse,
        better=better,
        figure=found,
    )


def render(rows: Sequence[Row], took_s: float) -> str:
    """Return the study's page."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    like = [row for row in rows if row.scale == 1.0]
    several = [row for row in like if row.base > 1]
    one = [row for row in like if row.base == 1 and row.between <= MARGIN]
    beyond = [row for row in like if row.base == 1 and row.between > MARGIN]
    lines = [
        "# Study: comparing runs",
        "",
        f"`make study-compare`, {today}, {took_s:.0f} s. Runs of {REQUESTS} requests: log-normal latencies",
        "whose neighbours correlate (ρ), shifted as a whole from run to run (deviation). The comparisons of",
        f"a row are drawn from {POOL} runs of either kind, so they are not independent of each other; all go",
        "through the code of `overproof compare`. Like runs may be called WORSE, in any figure at all, in at",
        f"most 5 % of comparisons. With several base runs they were in {_wrong(several)},",
        f"with one base run and a deviation within the margin in {_wrong(one)}.",
        "Where runs differ by 10 %, twice the margin, what one base run is taken to show is not true, and",
        f"like runs were WORSE in {_wrong(beyond)}: one base run is no baseline for a system like that.",
        "",
        f"The last columns are of `{FIGURE}` alone, whose margin is 5 %. With one base run a change of 10 %",
        "is hardly ever decided where runs differ by less than the margin.",
        "",
        "| deviation between runs | ρ | base runs | change | comparisons | any WORSE | any BETTER "
        "| WORSE | SAME | UNCLEAR |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = [row.figure[d] / row.trials for d in (Direction.WORSE, Direction.SAME, Direction.UNCLEAR)]
        cells = (
            f"{row.between:.0%}",
            f"{row.rho:g}",
            str(row.base),
            "none" if row.scale == 1.0 else f"{row.scale - 1:+.0%}",
            str(row.trials),
            f"{row.worse / row.trials:.1%}",
            f"{row.better / row.trials:.1%}",
            *(f"{share:.0%}" for share in shares),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _wrong(rows: Sequence[Row]) -> str:
    wrong, trials = sum(row.worse for row in rows), sum(row.trials for row in rows)
    most = max(row.worse / row.trials for row in rows)
    return f"{wrong} of {trials} ({wrong / trials:.2%}; in the worst row {most:.1%})"


def main() -> None:
    """Run the study and write its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500, help="comparisons of each row")
    parser.add_argument("--out", type=Path, default=REPORT, help="page that is written")
    options = parser.parse_args()
    began, rows = time.monotonic(), []
    for between, rhos in NOISE:
        for rho in rhos:
            rows += study(between, rho, options.trials)
            print(f"deviation {between:.0%}, rho {rho:g}: {len(rows)} rows", file=sys.stderr)  # noqa: T201
    options.out.write_text(render(rows, time.monotonic() - began), encoding="utf-8")


if __name__ == "__main__":
    main()

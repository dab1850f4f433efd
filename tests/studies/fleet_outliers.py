"""Study: how often the rule on outliers accuses a part of a healthy fleet, and how often it sees slow ones.

``make study-fleet-outliers`` prints the tables of docs/studies/fleet-outliers.md; 15 minutes.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import duckdb

from burnin.fleet.outliers import judge_outliers
from probes.outcome import Outcome
from reports.fleet_tables import FleetTables
from reports.record import SERIES_FOLDER, create_run
from reports.run import load_run

GPUS, METRICS, SPREAD = 8, 5, 0.015
_UNIFORM = "(1 - random())"
_NORMAL = f"sqrt(-2 * ln({_UNIFORM})) * cos(2 * pi() * random())"
# What healthy GPUs may differ by: the bell, two with heavier tails, one with its tail on the slow side only.
SHAPES = {
    "normal": _NORMAL,
    "Student's t, 6": f"{_NORMAL} / sqrt(-2 * ln({_UNIFORM} * {_UNIFORM} * {_UNIFORM}) / 6)",
    "Student's t, 4": f"{_NORMAL} / sqrt(-2 * ln({_UNIFORM} * {_UNIFORM}) / 4)",
    "exponential, slow side": f"ln({_UNIFORM})",
}
FLEETS = {8: 200, 64: 150, 512: 40, 12_500: 5}  # hosts -> how many fleets of each shape
SLOW = (0.88, 0.85, 0.80)  # of the median: planted in every tenth host, one GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What came of some fleets."""

    fleets: int
    with_fail: int
    undecided: int  # parts


def tally(folder: Path, *, hosts: int, shape: str, fleets: int, seed: int) -> Tally:
    """Judge healthy fleets of one size and shape."""
    with_fail = undecided = 0
    for number in range(fleets):
        counts = _judge(folder, hosts, shape, seed + number, slow=1.0)
        with_fail += bool(counts[Outcome.FAIL])
        undecided += counts[Outcome.INCONCLUSIVE]
    return Tally(fleets=fleets, with_fail=with_fail, undecided=undecided)


def seen(folder: Path, *, hosts: int, slow: float, seed: int) -> float:
    """Return the share of planted slow GPUs that are named; the others are healthy by the bell."""
    return _judge(folder, hosts, "normal", seed, slow=slow)[Outcome.FAIL] / len(range(3, hosts, 20))


def _judge(folder: Path, hosts: int, shape: str, seed: int, *, slow: float) -> Counter[Outcome | None]:
    """Return how many parts came to what in one fleet."""
    with create_run(folder, kind="fleet", spec={}, seed=seed) as writer:
        path = writer.path
    with duckdb.connect() as connection:
        connection.execute(f"SELECT setseed({(seed % 1000) / 1000})")
        connection.execute(f"""
            COPY (SELECT 1 AS t_ns, 'h' || h AS host, 'GPU-' || h || '-' || g AS gpu, '' AS serial,
                  'H' AS model, 'tflops ' || m AS metric, '' AS unit, 700 * (1 + {SPREAD} * {SHAPES[shape]})
                  * CASE WHEN m = 0 AND g = 0 AND h % 20 = 3 THEN {slow} ELSE 1 END AS value
                  FROM range({hosts}) a(h), range({GPUS}) b(g), range({METRICS}) c(m))
            TO '{path / SERIES_FOLDER / "gpu_result.parquet"}' (FORMAT parquet)""")
    with FleetTables(load_run(path)) as tables:
        findings = judge_outliers(tables, fleet="study")
    (path / SERIES_FOLDER / "gpu_result.parquet").unlink()
    return Counter(f.outcome for f in findings if not f.subject.startswith("fleet:"))


def main() -> None:
    """Print the study."""
    say = sys.stdout.write
    say("| healthy fleet | spread | fleets | with a false FAIL | undecided parts each |\n")
    say("|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as name:
        for hosts, fleets in FLEETS.items():
            for shape in SHAPES:
                found = tally(Path(name), hosts=hosts, shape=shape, fleets=fleets, seed=1)
                each = found.undecided / found.fleets
                say(f"| {hosts:,} × {GPUS} GPUs | {shape} | {fleets} | {found.with_fail} | {each:.3g} |\n")
                sys.stdout.flush()
        say("\n| fleet | a GPU in 20 hosts at | named |\n|---|---|---|\n")
        for hosts in (64, 512, 12_500):
            for slow in SLOW:
                share = seen(Path(name), hosts=hosts, slow=slow, seed=7)
                say(f"| {hosts:,} × {GPUS} | {slow:.0%} of the median | {share:.1%} |\n")


if __name__ == "__main__":
    main()

"""The whole crash matrix of a game day: ``make study-gameday`` writes docs/studies/gameday-crashes.md.

It goes on where an earlier call has stopped; results stand in runs/study-gameday/results.ndjson. With
``--budget-s`` it stops in time and says how much was run. ``--anew`` forgets what was run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from experiments.injecting.crash_points import POINTS
from probes.json_types import JsonObject
from reports.run import read_ndjson
from tests.experiments.crashes import SEED, SIGNALS, Cell, all_cells, run_cell, staying_lab

RESULTS = Path("runs/study-gameday/results.ndjson")
TABLE = Path("docs/studies/gameday-crashes.md")
LABS = 2
FOUND = """
What it has found so far, both mended:

- `SIGHUP chaos inject.after hang`: a replica stayed stopped. Undoing came so soon after SIGSTOP that the
  process did not look stopped yet, and was left alone. Undoing now sends SIGCONT to every victim
  that lives, and the cell was run again (most of the others were run before that).
- A signal in the rollbacks: the controller waited its whole `recovery_s` for a healing that its own undo had
  made impossible.
"""


def main() -> int:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget-s", type=float, default=7200.0)
    parser.add_argument("--anew", action="store_true")
    given = parser.parse_args()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    if given.anew:
        RESULTS.unlink(missing_ok=True)
    done = {str(row["name"]) for row in read_ndjson(RESULTS)}
    missing = [cell for cell in all_cells() if cell.name not in done]
    random.Random(SEED).shuffle(missing)  # whenever it stops, what was run is a fair sample
    _run(missing, deadline=time.monotonic() + given.budget_s)
    rows = list(read_ndjson(RESULTS))
    TABLE.write_text(render(rows, total=len(all_cells())))
    return 1 if any(row["problems"] for row in rows) else 0


def _run(cells: list[Cell], *, deadline: float) -> None:
    lock = Lock()

    def work(_: int) -> None:
        with tempfile.TemporaryDirectory() as name, staying_lab(Path(name)) as folder:
            while time.monotonic() < deadline:
                with lock:
                    if not cells:
                        return
                    cell = cells.pop()
                aftermath = run_cell(cell, folder)
                row = {"name": cell.name} | asdict(aftermath)
                with lock, RESULTS.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                if aftermath.problems:
                    print(cell.name, aftermath.problems, flush=True)  # noqa: T201
                    return  # its lab may be spoiled: no other cell shall pay for it

    with ThreadPoolExecutor(LABS) as pool:
        for part in [pool.submit(work, number) for number in range(LABS)]:
            part.result()


def render(rows: Sequence[JsonObject], *, total: int) -> str:
    """Return the study's page."""
    unreached = sum(not row["was_reached"] for row in rows)
    bad = [row for row in rows if row["problems"]]
    lines = [
        "# Killing game days",
        "",
        f"`make study-gameday`, {time.strftime('%Y-%m-%d')}. {len(rows)} of {total} cells were run, "
        + ("all of them." if len(rows) == total else f"in an order drawn by seed {SEED}; the rest is open."),
        "",
        "Each cell is a game day on a lab that stays up. When any of its processes first reaches the point,",
        "a signal goes to the controller, to Chaos Toolkit's child, or to the load child (with traffic; the",
        "others go without). Faults: a replica killed, a replica stopped (SIGSTOP), errors at the gateway.",
        "After it, and after `gameday undo`: the lab as it was captured, no process left, nothing pending, a",
        "second undo and the doctor find nothing, the record can be read, and is not judged PASS.",
        "",
        f"**{len(rows) - len(bad)} of {len(rows)} as they should be.** In {unreached} the point was not",
        f"reached; in {sum(row['undone'] > 0 for row in rows)} something was left for `gameday undo`.",
        "",
        "| point | controller: run, left for undo, wrong | chaos child | load child |",
        "|---|---|---|---|",
    ]
    for point in POINTS:
        cells = (_count(rows, point, whom) for whom in ("controller", "chaos", "load"))
        lines.append(f"| `{point}` | {' | '.join(cells)} |")
    lines += ["", "| signal | run | exit codes of the controller |", "|---|---|---|"]
    for number in SIGNALS:
        those = [row for row in rows if row["cell"]["signal"] == number and row["was_reached"]]
        codes = sorted({int(row["exit_status"]) for row in those})
        lines.append(f"| {number} | {len(those)} | {', '.join(map(str, codes))} |")
    lines += [f"\n- {row['name']}: {'; '.join(row['problems'])}" for row in bad]
    return "\n".join(lines) + "\n" + FOUND


def _count(rows: Sequence[JsonObject], point: str, whom: str) -> str:
    those = [row for row in rows if row["cell"]["point"] == point and row["cell"]["whom"] == whom]
    left, bad = sum(row["undone"] > 0 for row in those), sum(bool(row["problems"]) for row in those)
    return f"{len(those)}, {left}, {bad}" if those else ""


if __name__ == "__main__":
    sys.exit(main())

"""Fifty game days on a lab that heals, and fifty on one that does not: ``make study-gameday-days``.

Each is one of the catalogue's experiments whose fault the lab heals by itself (tag ``heals``), drawn by the
day's number, which is its seed as well, and is carried out as it is shipped, one at a time.
It goes on where an earlier call has stopped, by the rows in runs/study-gameday-days.ndjson. No day begins
while the machine is busy with other things: its client would be late, and the day undecided.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from probes.json_types import JsonObject
from reports.run import read_ndjson

DAYS = 50  # of each kind
HEALTHY, UNHEALED = "healthy", "healing off"
PASSES_MIN = 49
RESULTS = Path("runs/study-gameday-days.ndjson")
TABLE = Path("docs/studies/gameday-days.md")
CATALOGUE = Path(__file__).parents[2] / "experiments/catalogue/local"
DAY_TIMEOUT_S = 300.0
LOAD_PER_CORE_MAX = 1.5  # a day itself is about half a core's work
_LOOK_EVERY_S = 3.0


@cache
def healable() -> tuple[Path, ...]:
    """Return the catalogue's experiments whose fault the lab heals by itself."""
    return tuple(path for path in sorted(CATALOGUE.glob("*.yaml")) if "heals" in _tags(path))


def _tags(path: Path) -> list[str]:
    return list(yaml.safe_load(path.read_text())["tags"])


def drawn(kind: str, number: int) -> Path:
    """Return the experiment of a day."""
    return random.Random(f"{kind}:{number}").choice(healable())


def one_day(experiment: Path, *, kind: str, seed: int, out: Path) -> JsonObject:
    """Carry out one game day; return its verdict and every finding that is no PASS."""
    began, load = time.monotonic(), os.getloadavg()[0]
    command = [sys.executable, "-P", "-m", "overproof", "gameday", "run", str(experiment)]
    command += ["--seed", str(seed), "--out", str(out), "--json"]
    command += ["--lab-no-restart"] if kind == UNHEALED else []
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=DAY_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    row = {"kind": kind, "number": seed, "experiment": experiment.stem, "exit_status": done.returncode}
    row |= {
        "t": time.strftime("%Y-%m-%d %H:%M:%S"),
        "took_s": round(time.monotonic() - began, 1),
        "load": round(load, 1),
    }
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return row | {"outcome": "no verdict", "spoiled": [["", "", done.stderr.strip()[-300:]]]}
    spoiled = [
        [finding["rule"], finding["outcome"], finding["observed"]]
        for finding in said["findings"]
        if finding["outcome"] not in (None, "pass")
    ]
    return row | {"outcome": said["outcome"], "spoiled": spoiled}


def is_as_wanted(row: JsonObject) -> bool:
    """Say whether a day ended as it should have."""
    return bool((row["outcome"] == "pass") == (row["kind"] == HEALTHY))


def main() -> int:
    """Run the days that are missing, as time allows, and write the table of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--within-s", type=float, default=7200.0, help="Begin no further day after that.")
    parser.add_argument(
        "--load-max", type=float, default=LOAD_PER_CORE_MAX * (os.cpu_count() or 1),
        help="Begin a day only while the load average of the last minute is at most this.",
    )  # fmt: skip
    parser.add_argument("--note", default="", help="A sentence for the page: how these days were run.")
    parser.add_argument("--anew", action="store_true", help="Forget the days that were run.")
    given = parser.parse_args()
    deadline = time.monotonic() + given.within_s
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    if given.anew:
        RESULTS.unlink(missing_ok=True)
    rows = list(read_ndjson(RESULTS))
    done = {(row["kind"], row["number"]) for row in rows}
    for number in range(1, DAYS + 1):
        for kind in (HEALTHY, UNHEALED):
            if (kind, number) not in done and _is_quiet(given.load_max, deadline=deadline):
                rows.append(_recorded(kind, number))
                TABLE.write_text(render(rows, note=given.note))
    TABLE.write_text(render(rows, note=given.note))
    return 0 if _holds(rows) else 1


def _is_quiet(load_max: float, *, deadline: float) -> bool:
    """Wait until the machine is; return whether it came to it in time."""
    while time.monotonic() < deadline:
        if os.getloadavg()[0] <= load_max:
            return True
        time.sleep(_LOOK_EVERY_S)
    return False


def _recorded(kind: str, number: int) -> JsonObject:
    """Run a day and append its row; the record of one that did not end as wanted is kept."""
    out = RESULTS.with_suffix("") / f"{kind}-{number}".replace(" ", "-")
    shutil.rmtree(out, ignore_errors=True)
    row = one_day(drawn(kind, number), kind=kind, seed=number, out=out)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if is_as_wanted(row):
        shutil.rmtree(out, ignore_errors=True)
    return row


def _holds(rows: Sequence[JsonObject]) -> bool:
    wrong = Counter(str(row["kind"]) for row in rows if not is_as_wanted(row))
    return wrong[HEALTHY] <= DAYS - PASSES_MIN and not wrong[UNHEALED]


def render(rows: Sequence[JsonObject], *, note: str = "") -> str:
    """Return the study's page."""
    counts = Counter(str(row["kind"]) for row in rows)
    passes = Counter(str(row["kind"]) for row in rows if row["outcome"] == "pass")
    dates = sorted({str(row["t"])[:10] for row in rows})
    lines = [
        "# Game days with and without healing",
        "",
        f"`make study-gameday-days`, {' to '.join(dict.fromkeys([*dates[:1], *dates[-1:]]))}. "
        f"{counts[HEALTHY]} of {DAYS} healthy days and {counts[UNHEALED]} of {DAYS} with healing switched "
        "off were run" + (", all of them." if len(rows) == 2 * DAYS else "; the same command goes on."),
        "",
        "Each is one of the catalogue's experiments whose fault the lab heals by itself, as it is shipped,",
        "drawn by the day's number, which is its seed: on a lab of its own, under traffic, one at a time.",
        f"When a day began, the load average of the machine ({os.cpu_count()} cores) was {_loads(rows)}.",
        *([note] if note else []),
        "With healing off the lab restarts nothing, and its liveness check kills nothing; undoing puts back.",
        "",
        f"**{passes[HEALTHY]} of {counts[HEALTHY]} healthy days PASS (wanted: {PASSES_MIN} of {DAYS}); "
        f"{passes[UNHEALED]} of {counts[UNHEALED]} without healing do (wanted: none).**",
        "",
        "| experiment | lab | days | PASS | FAIL | INCONCLUSIVE | no verdict | median s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in (HEALTHY, UNHEALED):
        for name in sorted({str(row["experiment"]) for row in rows}):
            lines += _line(name, kind, [r for r in rows if (r["experiment"], r["kind"]) == (name, kind)])
    odd = [row for row in rows if not is_as_wanted(row)]
    lines += ["", "## Days that did not end as wanted", ""]
    late = sum("client" in {rule for rule, _, _ in row["spoiled"]} for row in odd)
    if late:
        lines += [f"In {late} of {len(odd)} the load client itself was late: its machine's doing.", ""]
    lines += [_told(row) for row in odd] or ["None."]
    lines += ["", "## What decided the days without healing", ""]
    rules = Counter(
        rule for row in rows if row["kind"] == UNHEALED for rule in {f"{s[0]} {s[1]}" for s in row["spoiled"]}
    )
    lines += [f"- {rule}: {count} days" for rule, count in sorted(rules.items())] or ["None were run."]
    return "\n".join([*lines, ""])


def _loads(rows: Sequence[JsonObject]) -> str:
    loads = sorted(row["load"] for row in rows)
    return f"{loads[len(loads) // 2]:g} in the middle and {loads[-1]:g} at most" if loads else "not looked at"


def _line(name: str, kind: str, rows: Sequence[JsonObject]) -> list[str]:
    if not rows:
        return []
    outcomes = Counter(str(row["outcome"]) for row in rows)
    told = [outcomes[o] for o in ("pass", "fail", "inconclusive", "no verdict")]
    median_s = sorted(row["took_s"] for row in rows)[len(rows) // 2]
    return [f"| {name} | {kind} | {len(rows)} | {' | '.join(map(str, told))} | {median_s:.0f} |"]


def _told(row: JsonObject) -> str:
    why = "; ".join(f"{rule} {outcome}: {observed}" for rule, outcome, observed in row["spoiled"])
    return f"- {row['experiment']}, {row['kind']}, day {row['number']}: {row['outcome']}: {why}"


if __name__ == "__main__":
    sys.exit(main())

"""What the runs of the test suite itself have shown, of what really breaks: ``make study-coverage``.

Runs the tests that break something for real, keeps what their runs recorded, computes the coverage of it as
``overproof coverage`` does, and writes docs/coverage.md below its mark. Records that a test wrote itself are
left out, and so are runs whose fault hit a stand-in for some tool.

It goes on where an earlier call has stopped, by the folders in runs/study-coverage; ``--again`` begins anew.
Each of the tests is called by itself, so that one that fails costs the others nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from probes.json_types import JsonObject
from reports.record import EVENTS_FILE
from reports.run import read_ndjson

KEPT = Path("runs/study-coverage")
PAGE = Path("docs/coverage.md")
MARK = "<!-- below: written by make study-coverage -->\n"
SAID = "pytest.json"  # in the folder of one of the tests, once it has ended
TIMEOUT_S = 900.0  # of one of the tests
# Faults that tests carry out against stand-ins for a vendor's or the system's tools: nothing of it is real.
STAND_INS = ("gpu", "power", "service")
# The tests whose runs break something for real, in processes of their own.
TESTS = (
    "tests/burnin/test_self_test.py",
    "tests/experiments/test_gameday.py",
    "tests/experiments/test_catalogue.py",
    "tests/experiments/hosts/test_host_days.py",
    "tests/experiments/hosts/test_network_days.py",
    "tests/experiments/training/test_training_days.py",
)
WAYS_SHOWN = 2  # of a cause; all of them stand with its categories


def main() -> int:
    """Run the tests, compute, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", default=TESTS, help="only these, and again; else all not run yet")
    parser.add_argument("--again", action="store_true", help="forget what earlier calls have kept")
    parser.add_argument("--page-only", action="store_true", help="run no test")
    given = parser.parse_args()
    if given.again:
        shutil.rmtree(KEPT, ignore_errors=True)
    for test in [] if given.page_only else given.tests:
        folder = KEPT / test.replace("/", "-")
        if Path(test).exists() and (given.tests is not TESTS or not (folder / SAID).exists()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / SAID).write_text(json.dumps(run_tests(test, folder)))
    for run in [path.parent for path in KEPT.glob("*/*/run.json")]:
        if hits_a_stand_in(run):
            shutil.rmtree(run)
    folders = sorted(path.parent for path in KEPT.glob(f"*/{SAID}"))
    said = [json.loads((folder / SAID).read_text()) for folder in folders]
    head, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    lines = render(computed([folder for folder in folders if [*folder.glob("*/run.json")]]), said)
    PAGE.write_text(head + (mark or MARK) + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


def hits_a_stand_in(run: Path) -> bool:
    """Say whether a run's fault was one that tests have no real target for."""
    injected = (row for row in read_ndjson(run / EVENTS_FILE) if row["kind"] == "fault.injected")
    return any(str(row["data"]["fault"]).partition(".")[0] in STAND_INS for row in injected)


def run_tests(test: str, folder: Path) -> JsonObject:
    """Run some tests with their runs kept; return the day, what was called, and what pytest said last."""
    command = ["-m", "pytest", "-q", "-p", "tests.kept_runs", "--keep-runs", str(folder), test]
    limit = ["timeout", "--signal=INT", "--kill-after=30", f"{TIMEOUT_S:g}"]
    done = subprocess.run(
        [*limit, sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S + 60,
    )
    sys.stderr.write(done.stdout[-4000:])
    last = next((line for line in reversed(done.stdout.splitlines()) if " in " in line), "no end")
    return {"day": time.strftime("%Y-%m-%d"), "test": test, "said": last.strip("= ")}


def computed(folders: Sequence[Path]) -> JsonObject:
    """Return what ``overproof coverage`` says of the kept runs."""
    command = [sys.executable, "-P", "-m", "overproof", "coverage", *map(str, folders), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    document: JsonObject = json.loads(done.stdout)
    return document


def render(document: JsonObject, said: Sequence[JsonObject]) -> Iterator[str]:
    """Yield the page below its mark."""
    yield "\nBy `make study-coverage`: each of these with `pytest -p tests.kept_runs --keep-runs FOLDER`,"
    yield "then `overproof coverage` over what they kept.\n"
    yield "| tests | day | pytest said |"
    yield "|---|---|---|"
    yield from (f"| {row['test']} | {row['day']} | {row['said']} |" for row in said)
    count, others = len(document["runs"]), len(document["not_counted"])
    yield f"\n{count} runs count; {others} do not: {_reasons(document)}."
    yield "\n| table | shown | can be found | of it in service | can be brought about | above S |"
    yield "|---|---|---|---|---|---|"
    for table in document["tables"]:
        shares = ("detectable", "detectable_in_service", "injectable", "injectable_above_s")
        cells = "".join(f" {table[f'{name}_share']:.1%} |" for name in shares)
        yield f"| {table['title']} | **{table['shown_share']:.1%}** |{cells}"
    yield ""
    for table in document["tables"]:
        gaps = sorted((row for row in table["rows"] if not row["is_shown"]), key=lambda row: -row["count"])
        named = ", ".join(f"{row['cause']} ({row['count'] / table['total']:.1%})" for row in gaps)
        yield f"- Not shown of {table['title'].partition(',')[0]}: {named or 'nothing'}."
    for table in document["tables"]:
        yield from _table(table, {entry["id"]: entry for entry in document["categories"]})
    yield from _categories(document)


def _reasons(document: JsonObject) -> str:
    reasons = [text.partition(": ")[2].partition(";")[0] for text in document["not_counted"]]
    return ", ".join(f"{reasons.count(reason)} × {reason}" for reason in dict.fromkeys(reasons)) or "none"


def _table(table: JsonObject, categories: JsonObject) -> Iterator[str]:
    yield f"\n## {table['title']}\n\n{table['source']}.\n"
    yield f"| cause | {table['unit']} | share | found | brought about | shown by | not shown of it |"
    yield "|---|---|---|---|---|---|---|"
    for row in table["rows"]:
        when = "in service" if row["is_detectable_in_service"] else "at acceptance"
        found = when if row["is_detectable"] else "**no**"
        ways = ", ".join(row["fidelities"]) or ("mixed" if row["is_injectable"] else "**no**")
        known = [categories[name] for name in row["categories"]]
        ways_shown = list(_shown([one for entry in known for one in entry["shown"]]))
        more = len(ways_shown) - WAYS_SHOWN
        shown = "; ".join(ways_shown[:WAYS_SHOWN] + ([f"{more} more"] if more > 0 else []))
        shown = shown if row["is_shown"] else "**no**"
        left = ", ".join(entry["id"] for entry in known if not entry["shown"]) or (
            "" if known else "not broken down"
        )
        share = row["count"] / table["total"]
        yield (f"| {row['cause']} | {row['count']:g} | {share:.1%} | {found} | {ways} | {shown} | {left} |")


def _shown(shown: Sequence[JsonObject]) -> Iterator[str]:
    """Yield each fault that was shown, once, with every way in which it was found or healed."""
    hows: dict[str, list[str]] = {}
    for one in shown:
        hows.setdefault(f"{one['fault']} ({one['fidelity']})", []).append(one["how"])
    yield from (f"{fault}: {', '.join(dict.fromkeys(how))}" for fault, how in hows.items())


def _categories(document: JsonObject) -> Iterator[str]:
    yield "\n## Category by category\n"
    yield "| category | what | found by | brought about by | shown by |"
    yield "|---|---|---|---|---|"
    for entry in document["categories"]:
        cells = (
            entry["title"],
            ", ".join(found["detector"].replace(": ", " ") for found in entry["detectors"]) or "**nothing**",
            ", ".join(dict.fromkeys(map(_way, entry["injections"]))) or "**nothing**",
            "; ".join(_shown(entry["shown"])) or "**no**",
        )
        yield f"| {entry['id']} | {' | '.join(cells)} |"


def _way(injection: JsonObject) -> str:
    """Name a fault; what it needs the catalogue lists, but for a seed of a burn-in."""
    needs = injection["needs"] if injection["fault"].startswith("seed ") else []
    return f"{injection['fault']} ({injection['fidelity']}{''.join(f'; needs {need}' for need in needs)})"


if __name__ == "__main__":
    sys.exit(main())

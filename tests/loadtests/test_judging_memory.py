"""Judging and reporting a long run takes memory by the byte for each request, and not by the object."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path

import duckdb

from probes.json_types import JsonObject
from probes.request import Request
from reports.record import create_run
from reports.request_table import PARQUET, REQUEST_COLUMNS
from reports.run import FINISHED

# Rows come back as they ended, not as they were due; one in 100 failed, one in 500 was hung up on.
ROWS = """
    WITH drawn AS (
        SELECT i, CAST(1700000000000000000 + i * 1000000 AS BIGINT) AS due_ns, hash(i) AS chance,
            CAST(20000000 + hash(i) % 40000000 AS BIGINT) AS first_ns,
            [CAST(hash(i * 8 + k) % 30000 AS BIGINT) FOR k IN range(8)] AS gaps, i % 100 = 7 AS is_failed,
            i % 500 = 3 AS is_hung_up
        FROM range({count}) AS rows(i)
    )
    SELECT i AS index, i % 2 AS worker, 'http://127.0.0.1:8000' AS endpoint, due_ns AS t_intended_ns,
        due_ns + chance % 90000 AS t_sent_ns, due_ns + first_ns AS t_first_ns,
        due_ns + first_ns + 1000 * list_sum(gaps) AS t_last_ns,
        due_ns + first_ns + 1000 * list_sum(gaps) + chance % 500000 AS t_end_ns, 200 AS status,
        CASE WHEN is_failed THEN 'truncated' WHEN is_hung_up THEN 'hung_up' END AS error,
        CASE WHEN is_failed THEN 'after ' || i || ' bytes' ELSE '' END AS error_detail,
        'replica-' || i % 5 AS replica, 9 AS events, 9 AS tokens_out, gaps AS gaps_us, 9 AS reads,
        (chance % 1000) / 997.0 AS lag_ms_max, (chance % 100) / 991.0 AS first_uncertain_ms, is_hung_up
    FROM drawn ORDER BY t_end_ns
"""
SPEC: JsonObject = {
    "name": "long",
    "arrivals": {"kind": "constant", "rate_per_s": 1000.0},
    "duration_s": 1.0,
    "prompt": {
        "input_tokens": {"kind": "constant", "value": 16},
        "output_tokens": {"kind": "constant", "value": 9},
    },
    "warm_up": {"seconds": 5},
    "slos": [
        {"metric": "ttft_ms", "statistic": "p95", "bound": 58},
        {"metric": "itl_ms", "statistic": "p99", "bound": 29},
        {"metric": "goodput", "objective": 0.9},
    ],
}
JUDGE = """
import json, sys, time
from pathlib import Path
from loadtests.judging import judge_run
from reports.run import load_run
from reports.run_figures import read_figures
from reports.session import rejudge
from reports.sheet import build_sheet

begun = time.perf_counter()
run = load_run(Path(sys.argv[1]))
findings = rejudge(run, judge_run)
sheet, figures = build_sheet(run), read_figures(run)
broken = [f.observed for f in findings if f.rule == "judging"]
# Not getrusage: its largest size is also that of the process that started this one.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak_mib = int(status["VmHWM"].split()[0]) / 1024
seconds = time.perf_counter() - begun
slos = {f.subject: f.evidence["total"] for f in findings if f.rule == "slo"}
print(json.dumps([peak_mib, broken, sheet.requests, figures.requests, slos, seconds]))
"""


def made_run(folder: Path, count: int) -> Path:
    """Record a run of so many requests, without sending them."""
    with create_run(folder, kind="load", spec=SPEC | {"duration_s": count / 1000}, seed=1) as writer:
        writer.event("controller", FINISHED)
    part_of_requests(writer.path, ROWS.format(count=count))
    return writer.path


def part_of_requests(folder: Path, rows: str) -> None:
    """Write the rows of a query as the part of worker 0; the fields that it lacks have their defaults."""
    with duckdb.connect() as connection:
        given = {str(row[0]) for row in connection.execute(f"DESCRIBE {rows}").fetchall()}
    columns = ", ".join(
        f"CAST({name if name in given else _default(name)} AS {kind}) AS {name}"
        for name, kind in REQUEST_COLUMNS.items()
    )
    part = folder / "requests" / "worker-0.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET memory_limit = '2GB'")
        connection.execute(f"COPY (SELECT {columns} FROM ({rows})) TO '{part}' ({PARQUET})")


def _default(name: str) -> str:
    default = Request.__dataclass_fields__[name].default
    if default is MISSING or default is None:
        return "NULL"
    return f"'{default}'" if isinstance(default, str) else "[]" if default == () else str(default)


def judged(path: Path) -> tuple[float, JsonObject]:
    """Judge and report a run in a process of its own; return its largest size in MiB, and what it said."""
    command = [sys.executable, "-c", JUDGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    peak_mib, broken, shown, compared, slos, seconds = json.loads(done.stdout)
    assert not broken, broken
    return peak_mib, {"shown": shown, "compared": compared, "slos": slos, "seconds": seconds}


def test_a_hundred_thousand_more_requests_take_a_few_dozen_mebibytes_more(tmp_path: Path) -> None:
    few_mib, _ = judged(made_run(tmp_path / "few", 2_000))
    many_mib, said = judged(made_run(tmp_path / "many", 102_000))

    assert said["shown"] == said["compared"] == 102_000
    # Less the hung-up ones, and those of the first 5 s that did not fail.
    assert said["slos"]["slo:goodput"] == 102_000 - 204 - (5_000 - 10 - 50)
    # Here it took 39 MiB; as objects 226. Part of it are buffers of the database, which grow no further.
    assert many_mib - few_mib < 60, f"{few_mib:.0f} MiB for 2,000, {many_mib:.0f} MiB for 102,000"

"""The report of a long run in one process on two cores: ten million requests, an hour of 8 GPUs at 10 Hz.

Nobody sent those requests and nobody has those GPUs: rows are made up by SQL and written straight as Parquet.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb

from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import SERIES_FOLDER, create_run
from reports.request_table import PARQUET
from reports.run import FINISHED
from tests.benchmarks.figure import Figure
from tests.loadtests.test_judging_memory import ROWS, SPEC, part_of_requests

REQUESTS, HOUR_S, GPUS, RATE_HZ = 10_000_000, 3600, 8, 10
SECONDS_MAX, PEAK_MIB_MAX, REPORT_MIB_MAX = 20.0, 1536.0, 8.0
_TELEMETRY = """
    SELECT {t0} + i // {gpus} * {step} + i % {gpus} * 1000 AS t_ns, 'GPU-made-up-' || i % {gpus} AS gpu,
        640.0 + hash(i) % 60 AS power_w, 690.0 + hash(i) % 20 AS power_max_w,
        1900.0 + hash(i * 3) % 90 AS sm_clock_mhz, 1850.0 + hash(i * 5) % 90 AS sm_clock_min_mhz,
        CASE WHEN hash(i * 7) % 5000 = 0 THEN 68 ELSE 4 END AS event_reasons,
        0.0 AS held_hw_slowdown_pct, CASE WHEN hash(i * 7) % 5000 = 0 THEN 100.0 ELSE 0.0 END
            AS held_hw_thermal_pct, 0.0 AS held_sw_thermal_pct, 0.0 AS held_power_brake_pct,
        55.0 + hash(i * 11) % 20 AS temperature_c, 70.0 + hash(i * 13) % 15 AS memory_temperature_c,
        20 + hash(i * 17) % 5 AS temperature_margin_c, 2619 AS memory_clock_mhz, 95 + hash(i) % 5 AS util_pct,
        5 AS pcie_generation, 16 AS pcie_width
    FROM range({count}) AS rows(i)
"""
# ``overproof report`` as a user starts it, on the first two cores that it may have.
_REPORT = """
import json, os, sys, time
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
begun = time.perf_counter()
from overproof import main
sys.argv = ["overproof", "report", sys.argv[1]]
try:
    main()
except SystemExit as left:
    code = left.code
# Not getrusage: its largest size is also that of the process that started this one.
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
peak_mib = int(status["VmHWM"].split()[0]) / 1024
print(json.dumps([code, time.perf_counter() - begun, time.process_time(), peak_mib]))
"""


def made_run(folder: Path, *, requests: int = REQUESTS, seconds: int = HOUR_S) -> Path:
    """Record a run of so many requests and so much telemetry, and say in it that all of it is made up."""
    spec = SPEC | {"name": "made up for a benchmark", "duration_s": float(seconds)}
    with create_run(folder, kind="load", spec=spec, seed=1) as writer:
        writer.event("controller", FINISHED)
        writer.write_findings(
            [
                Finding(
                    rule="made-up",
                    subject="benchmark:report",
                    outcome=Outcome.INCONCLUSIVE,
                    observed="nobody sent these requests, and nobody has these GPUs",
                    expected="a record of something that happened",
                    next_step="none: this run measures how long its report takes",
                )
            ]
        )
    step_ns = seconds * 10**9 // requests
    # In the order in which they were due: what reads them asks for no order, and a sort would take the disk.
    rows = ROWS.replace("1700000000000000000", str(writer.header.started_ns))
    rows = rows.replace("i * 1000000", f"i * {step_ns}").replace("ORDER BY t_end_ns", "")
    part_of_requests(writer.path, rows.format(count=requests))
    telemetry = _TELEMETRY.format(
        t0=writer.header.started_ns,
        gpus=GPUS,
        step=10**9 // RATE_HZ,
        count=GPUS * RATE_HZ * seconds,
    )
    (writer.path / SERIES_FOLDER).mkdir(exist_ok=True)
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({telemetry}) TO '{writer.path}/{SERIES_FOLDER}/gpu.parquet' ({PARQUET})")
    return writer.path


def report_on(run: Path) -> tuple[float, float, float, float]:
    """Render it in a process of its own: seconds, CPU seconds, its largest size and the page in MiB."""
    command = [sys.executable, "-c", _REPORT, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    code, seconds, cpu_s, peak_mib = json.loads(done.stdout.splitlines()[-1])
    assert code == 3, done.stdout  # INCONCLUSIVE, as everything that is made up
    return seconds, cpu_s, peak_mib, (run / "report.html").stat().st_size / 2**20


def figures() -> Iterator[Figure]:
    """Yield the time, the largest size and the page's size, each beside its bound."""
    with tempfile.TemporaryDirectory(prefix="overproof-report-") as folder:
        seconds, cpu_s, peak_mib, page_mib = report_on(made_run(Path(folder)))
    what = f"{REQUESTS:,} requests, {HOUR_S} s of {GPUS} GPUs at {RATE_HZ} Hz"
    for name, value, unit, most in (
        ("report", seconds, "s", SECONDS_MAX),
        ("largest size", peak_mib, "MiB", PEAK_MIB_MAX),
        ("report.html", page_mib, "MiB", REPORT_MIB_MAX),
    ):
        verdict = "within" if value <= most else "BEYOND"
        beside = f"{verdict} {most:g}" + (f"; {cpu_s:.1f} s of CPU" if name == "report" else "")
        yield Figure(name=f"{what}: {name}", median=value, unit=unit, repeats=1, beside=beside)

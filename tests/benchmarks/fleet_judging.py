"""What judging and rendering a fleet of 12,500 hosts with 100,000 GPUs takes: seconds of 2 cores, memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from burnin.fleet.fleet_json import fleet_to_json
from burnin.fleet.host import Fleet, Host, Place
from burnin.fleet.network.record import TABLE as NET_TABLE
from burnin.fleet.simulation.run import run_simulation
from probes.json_types import JsonObject
from reports.record import SERIES_FOLDER, create_run
from reports.run import FINISHED, load_run
from reports.table import read_series
from tests.benchmarks.figure import Figure

HOSTS, GPUS = 12_500, 8
CORES = {0, 1}
_REPEATS = 3
_METRICS = {
    "tflops bf16": (700, 0.015),
    "tflops fp8": (1400, 0.015),
    "tflops_per_ghz bf16": (410, 0.008),
    "tflops_held": (690, 0.015),
    "hbm_gbps": (2540, 0.006),
    "h2d_gbps": (52, 0.02),
    "d2h_gbps": (52, 0.02),
    "allreduce_busbw_gbps 17179869184 B 8 ranks auto": (475, 0.01),
    "power_w": (690, 0.01),
    "temperature_c": (66, 0.03),
}
# One per cent of the hosts did not pass, a hundred GPUs are slow, ten hosts compute other bits.
_HOST = "printf('gpu%05d', h)"
_NORMAL = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"
_TABLES = {
    "host": f"""
        SELECT 1 AS t_ns, {_HOST} AS host, CASE WHEN h % 500 = 7 THEN 'lost' ELSE 'finished' END AS state,
        CASE WHEN h % 500 = 7 THEN 'inconclusive' WHEN h % 125 = 3 THEN 'fail' ELSE 'pass' END AS outcome,
        '' AS run, 1800.0 AS seconds, 0.001 AS clock_offset_s, '' AS detail, printf('r%04d', h // 8) AS rack,
        printf('p%04d', h // 32) AS pdu, 'hall' AS hall, printf('leaf%04d', h // 16) AS switch FROM hosts""",
    "host_finding": f"""
        SELECT 1 AS t_ns, {_HOST} AS host, 'ecc' AS rule, 'gpu:GPU-' || h || '-0' AS subject,
        'fail' AS outcome, '2 uncorrectable errors' AS observed, 'none' AS expected,
        'replace it' AS next_step, false AS is_explained FROM hosts WHERE h % 125 = 3""",
    "gpu_result": f"""
        SELECT 1 AS t_ns, {_HOST} AS host, 'GPU-' || h || '-' || g AS gpu, 'S' || h || g AS serial,
        'NVIDIA H100 80GB HBM3' AS model, metric, unit,
        usual * (1 + spread * {_NORMAL}) * CASE WHEN h % 125 = 9 AND g = 3 THEN 0.75 ELSE 1 END AS value
        FROM hosts, gpus, metrics WHERE h % 500 <> 7""",
    "digest": f"""
        SELECT 1 AS t_ns, {_HOST} AS host, 'GPU-' || h || '-' || g AS gpu, product,
        CASE WHEN h % 1250 = 11 THEN 'other' || h ELSE 'aa' END AS digest
        FROM hosts, gpus, (SELECT unnest(['power', 'matmul']) AS product) WHERE h % 500 <> 7""",
    "fingerprint": f"""
        SELECT 1 AS t_ns, {_HOST} AS host, '' AS part, key,
        CASE WHEN h % 1000 = 1 AND key = 'kernel' THEN 'old' ELSE '1.2.3' END AS value FROM hosts,
        (SELECT unnest(['kernel', 'driver', 'bios', 'nccl', 'torch', 'cuda', 'os', 'microcode']) AS key)
        UNION ALL
        SELECT 1, {_HOST}, 'GPU-' || h || '-' || g, key, CASE key WHEN 'slot' THEN g::VARCHAR ELSE '96' END
        FROM hosts, gpus, (SELECT unnest(['slot', 'vbios', 'inforom']) AS key)""",
}


def write_fleet(out: Path, *, hosts: int = HOSTS, gpus: int = GPUS) -> Path:
    """Write the record of a large fleet as sealing leaves it, and return its folder."""
    places = [Place(rack=f"r{index // 8:04d}", switch=f"leaf{index // 16:04d}") for index in range(hosts)]
    named = (Host(name=f"gpu{index:05d}", place=place) for index, place in enumerate(places))
    fleet = Fleet(name="large", hosts=tuple(named))
    spec: JsonObject = {"profile": "intake", "fleet": fleet_to_json(fleet)}
    with create_run(out, kind="fleet", spec=spec, seed=1) as writer:
        writer.event("controller", FINISHED)
    with duckdb.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(f"CREATE TABLE hosts AS SELECT range AS h FROM range({hosts})")
        connection.execute(f"CREATE TABLE gpus AS SELECT range AS g FROM range({gpus})")
        connection.execute("CREATE TABLE metrics (metric VARCHAR, usual DOUBLE, spread DOUBLE, unit VARCHAR)")
        for metric, (usual, spread) in _METRICS.items():
            connection.execute("INSERT INTO metrics VALUES (?, ?, ?, '')", [metric, usual, spread])
        for name, query in _TABLES.items():
            target = writer.path / SERIES_FOLDER / f"{name}.parquet"
            connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet)")
    return writer.path


def figures() -> Iterator[Figure]:
    """Yield seconds and memory of ``overproof judge`` on that record: every list is written, too."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_fleet(Path(folder))
        seconds = sorted(_judge(run) for _ in range(_REPEATS))[_REPEATS // 2]
        peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        found = load_run(run).findings
    named = sum(1 for f in found if f.rule == "fleet-outlier" and f.subject.startswith("gpu:"))
    what = f"100,000 GPUs judged, rendered ({named} of {HOSTS // 125} slow ones named)"
    yield Figure(name=what, median=seconds, unit="s", repeats=_REPEATS)
    yield Figure(name="the same, peak of resident memory", median=peak_gib, unit="GiB", repeats=_REPEATS)
    with tempfile.TemporaryDirectory() as folder:
        run = run_simulation(HOSTS, profile="quick", seed=1, out=Path(folder), is_quiet=True).path
        trials = len(read_series(load_run(run), NET_TABLE))
        seconds = _judge(run)
        peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    what = f"a rehearsal of {HOSTS:,} hosts judged again, network stage of {trials:,} rows included"
    yield Figure(name=what, median=seconds, unit="s", repeats=1)
    yield Figure(name="peak of resident memory of all judging", median=peak_gib, unit="GiB", repeats=1)


def _judge(run: Path) -> float:
    command = [sys.executable, "-m", "overproof", "judge", str(run)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, timeout=600, check=False, preexec_fn=_on_two_cores)
    if done.returncode != 1:  # the fleet is sick
        raise RuntimeError(f"judging ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return time.perf_counter() - started


def _on_two_cores() -> None:
    os.sched_setaffinity(0, CORES & os.sched_getaffinity(0))

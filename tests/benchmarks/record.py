"""How fast the record takes lines, and how fast it is read back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from reports.record import create_run
from reports.run import load_run
from reports.table import read_series, seal
from tests.benchmarks.figure import Figure, median_of

_ROWS = 50_000
_REPEATS = 5


def figures() -> Iterator[Figure]:
    """Yield the cost of one sample written with one ``write`` each, sealed, and read back."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        yield _figure("sample written (survives kill -9)", lambda: _write(out))
        yield _figure("sample sealed into Parquet", lambda: _seal(out))
        yield _figure("sample read back", lambda: _read(out))


def _figure(name: str, measure: object) -> Figure:
    assert callable(measure)
    median = median_of(measure, repeats=_REPEATS)
    return Figure(name=name, median=median / _ROWS * 1e6, unit="µs", repeats=_REPEATS)


def _write(out: Path) -> float:
    with create_run(out, kind="burnin", spec={}, seed=0) as writer:
        started = time.perf_counter()
        for index in range(_ROWS):
            writer.sample("matmul", {"t_ns": index, "device": "cpu:0", "tflops": index * 0.5})
        return time.perf_counter() - started


def _seal(out: Path) -> float:
    _write(out)
    started = time.perf_counter()
    seal((out / "latest").resolve())
    return time.perf_counter() - started


def _read(out: Path) -> float:
    _seal(out)
    run = load_run(out / "latest")
    started = time.perf_counter()
    assert len(read_series(run, "matmul")) == _ROWS
    return time.perf_counter() - started

"""Samples as a table: the same whether sealed or not, with the clocks of other hosts put right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.errors import RecordError
from probes.json_types import JsonObject
from reports.panel import Point, thin, with_gaps
from reports.record import create_run
from reports.run import Run, load_run
from reports.series_table import open_series
from reports.table import seal
from reports.thinning import thinned_lines


def recorded(out: Path, rows: list[JsonObject], *, is_sealed: bool) -> Run:
    with create_run(out, kind="burnin", spec={}, seed=0) as writer:
        for row in rows:
            writer.sample("gpu", row)
    if is_sealed:
        seal(writer.path)
    return load_run(writer.path)


def lines(run: Run, figure: str) -> dict[str, tuple[Point, ...]]:
    with open_series(run, "gpu") as table:
        points = f'SELECT line, t_ns, "{figure}" AS v FROM series WHERE v IS NOT NULL'
        return thinned_lines(table.connection, points, t0_ns=0)


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_column_that_holds_anything_gives_its_numbers_and_only_those(
    is_sealed: bool, tmp_path: Path
) -> None:
    odd: list[object] = [1, "7", {"a": 1}, None, True, 2.5]
    rows = [{"t_ns": k * 10**9, "gpu": "a", 'odd "name': value} for k, value in enumerate(odd)]
    run = recorded(tmp_path, rows, is_sealed=is_sealed)
    with open_series(run, "gpu") as table:
        found = table.connection.execute('SELECT "odd ""name" FROM series ORDER BY t_ns').fetchall()

    assert [value for (value,) in found] == [1.0, None, None, None, None, 2.5]


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_host_whose_clock_is_ahead_stands_where_it_was(is_sealed: bool, tmp_path: Path) -> None:
    rows: list[JsonObject] = [{"t_ns": 5 * 10**9, "host": host, "power_w": 1.0} for host in ("a", "it's")]
    run = recorded(tmp_path, rows, is_sealed=is_sealed)
    header = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(header | {"clock_offset_s": {"it's": 2.0}}))

    assert lines(load_run(run.path), "power_w") == {"a": ((5.0, 1.0),), "it's": ((3.0, 1.0),)}


def test_lines_are_thinned_as_points_are(tmp_path: Path) -> None:
    """A spike of one sample, a dip of one, a silence: all are there, and SQL keeps as much as Python."""
    values = {k: 10.0 + k % 7 for k in range(20_000) if not 5000 <= k < 5100}
    values |= {7777: 99.0, 12_345: -5.0}
    rows: list[JsonObject] = [{"t_ns": k * 10**8, "gpu": "a", "power_w": v} for k, v in values.items()]
    [found] = lines(recorded(tmp_path, rows, is_sealed=True), "power_w").values()

    known = {t_s: v for t_s, v in found if v is not None}
    assert known[777.7] == 99.0
    assert known[1234.5] == -5.0
    assert [t_s for t_s, v in found if v is None] == [500.0]
    assert set(known.items()) <= {(k * 10**8 / 1e9, v) for k, v in values.items()}
    reference = thin(with_gaps((k / 10, v) for k, v in values.items()))
    assert abs(len(found) - len(reference)) < 10


def test_a_damaged_part_is_an_error_that_names_it(tmp_path: Path) -> None:
    run = recorded(tmp_path, [], is_sealed=False)
    (run.path / "series").mkdir(exist_ok=True)
    (run.path / "series" / "gpu.parquet").write_bytes(b"damaged")

    with pytest.raises(RecordError, match=r"gpu.parquet: cannot be read"), open_series(run, "gpu"):
        pass

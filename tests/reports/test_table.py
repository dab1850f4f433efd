"""Sealing: NDJSON becomes Parquet and not one value changes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from probes.errors import RecordError
from probes.event import to_json_line
from probes.json_types import JsonObject
from reports.record import create_run
from reports.run import load_run
from reports.table import read_requests, read_series, seal, series_names
from tests.reports.recorded import request, write_requests

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-9, 9)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["2026-11-21", "12:00:00", "1", "nan", "null", "true", '["a"]', '{"a":1}'])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
keys = st.sampled_from(["t_ns", 'b"', "c'", "d;--", "ä", "select", "x y", "2026-11-21"]) | st.text(max_size=3)
tables = st.lists(st.dictionaries(keys, values, max_size=4), max_size=8)

SEAL = """
import sys
from pathlib import Path
from reports.table import seal

seal(Path(sys.argv[1]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def said(rows: list[JsonObject]) -> list[JsonObject]:
    """Leave out nulls, and rows of nothing else: a table cannot tell null from absent."""
    without = [{key: value for key, value in row.items() if value is not None} for row in rows]
    return [row for row in without if row]


def typed(rows: list[JsonObject]) -> str:
    """Return rows in a form in which true and 1 differ, and 1 and 1.0, which are the same number, do not."""
    return json.dumps(_typed(rows), sort_keys=True)


def _typed(value: object) -> object:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        return ["number", str(int(value)) if value == int(value) else repr(value)]
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    return [_typed(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables, torn=st.sampled_from([b"", b'{"t_ns": 12, "val', b"\xff\xfe{", b'{"t_ns": 12}garbage\n']))
@example(rows=[{"v": 2**63}, {"v": 1}], torn=b"")
@example(rows=[{"v": 2**53 + 1}, {"v": 0.5}], torn=b"")
@example(rows=[{"v": True}, {"v": 1}], torn=b"")
@example(rows=[{"v": [1]}, {"v": []}, {"v": "[1]"}], torn=b"")
@example(rows=[{"t": "2026-11-21"}, {"t": "12:00:00"}], torn=b"")
def test_every_row_and_value_survives_sealing(
    rows: list[JsonObject], torn: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    run = load_run(create_run(folder, kind="burnin", spec={}, seed=0).path)
    part = run.path / "series" / "it's.ndjson"
    part.write_bytes(b"".join(to_json_line(row).encode() for row in rows) + torn)
    before = read_series(run, "it's")

    try:
        seal(run.path)
        is_sealed = not part.exists()
    except RecordError:
        is_sealed = False
        assert part.exists()

    assert len(before) == len(rows)
    assert typed(said(read_series(run, "it's"))) == typed(said(before))
    assert is_sealed or any(not key or "\0" in key for row in rows for key in row) or _differ_in_case(rows)


def _differ_in_case(rows: list[JsonObject]) -> bool:
    names = {key for row in rows for key in row}
    return len({name.lower() for name in names}) < len(names)


def test_types_in_the_sealed_table_are_those_that_sql_wants(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.sample("gpu", {"t_ns": 1, "w": 1, "ok": True, "name": "2026-11-21", "gaps": [1, 2], "odd": 1})
        writer.sample("gpu", {"t_ns": 2, "w": 1.5, "ok": None, "name": "b", "gaps": [], "odd": "x"})
        seal(writer.path)

    found = duckdb.connect().execute(f"DESCRIBE SELECT * FROM '{writer.path}/series/gpu.parquet'").fetchall()

    assert {row[0]: row[1] for row in found} == {
        "t_ns": "BIGINT",
        "w": "DOUBLE",
        "ok": "BOOLEAN",
        "name": "VARCHAR",
        "gaps": "BIGINT[]",
        "odd": "JSON",
    }


def test_lost_lines_of_each_part_are_counted(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.sample("whole", {"t_ns": 1})
        writer.sample("torn", {"t_ns": 1})
        with (writer.path / "series" / "torn.ndjson").open("a") as file:
            file.write('garbled\n{"t_ns":')

        assert seal(writer.path) == {"series/torn": 2}

    assert series_names(load_run(writer.path)) == ["torn", "whole"]


def test_a_part_that_no_table_can_hold_stays_readable_and_does_not_stop_the_others(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.sample("a", {"t_ns": 1, "Name": "x", "name": "y"})
        writer.sample("b", {"t_ns": 1})

        with pytest.raises(
            RecordError, match=r"a\.ndjson: has keys that differ only in case.*the part is kept"
        ):
            seal(writer.path)

    run = load_run(writer.path)
    assert read_series(run, "a") == [{"t_ns": 1, "Name": "x", "name": "y"}]
    assert (run.path / "series" / "b.parquet").exists()


def test_half_a_conversion_left_by_a_crash_is_passed_over_and_done_again(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.sample("gpu", {"t_ns": 1})
        (writer.path / "series" / "gpu.parquet.part").write_bytes(b"PAR1 half")

        assert read_series(load_run(writer.path), "gpu") == [{"t_ns": 1}]
        seal(writer.path)

    assert read_series(load_run(writer.path), "gpu") == [{"t_ns": 1}]
    assert sorted(p.name for p in (writer.path / "series").iterdir()) == ["gpu.parquet"]


def test_sealing_an_empty_run_or_one_twice_does_nothing(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        assert seal(writer.path) == {}
        writer.sample("gpu", {"t_ns": 1})
        seal(writer.path)

        assert seal(writer.path) == {}

    assert read_series(load_run(writer.path), "gpu") == [{"t_ns": 1}]


def test_a_damaged_table_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    run = load_run(create_run(tmp_path, kind="burnin", spec={}, seed=0).path)
    (run.path / "series" / "gpu.parquet").write_bytes(b"not parquet")

    with pytest.raises(RecordError, match=r"gpu\.parquet: cannot be read"):
        read_series(run, "gpu")


def test_a_line_longer_than_usual_is_sealed_like_any_other(tmp_path: Path) -> None:
    text = "word " * 2**22
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        for row in ({"t_ns": 1, "log": "short"}, {"t_ns": 2, "log": text}, {"t_ns": 3, "log": "short"}):
            writer.sample("node", row)

    seal(writer.path)

    assert not list(writer.path.glob("series/*.ndjson"))
    assert [row["log"] for row in read_series(load_run(writer.path), "node")] == ["short", text, "short"]


def test_sealing_many_rows_does_not_hold_them_all(tmp_path: Path) -> None:
    sizes = []
    for count in (100, 200_000):
        run = load_run(create_run(tmp_path / str(count), kind="load", spec={}, seed=0).path)
        write_requests(run.path, [request(0, 1, 1.0)])
        part = run.path / "requests" / "worker-0.ndjson"
        part.write_text(part.read_text() * count)
        done = subprocess.run(
            [sys.executable, "-c", SEAL, str(run.path)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        sizes.append(int(done.stdout) / 1024)

    # 74 to 113; it was 419 where each thread kept room for lines of any length.
    assert sizes[1] - sizes[0] < 200, f"MiB: {sizes}"


def test_requests_of_all_parts_come_in_the_order_of_their_schedule(tmp_path: Path) -> None:
    run = load_run(create_run(tmp_path, kind="load", spec={}, seed=0).path)
    rows = [request(0, index, 10 - index) for index in range(10)]
    write_requests(run.path, rows[:5])
    seal(run.path)
    (run.path / "requests" / "worker-0.parquet").rename(run.path / "requests" / "worker-1.parquet")
    write_requests(run.path, rows[5:])  # this part is still being written

    assert read_requests(run.path) == sorted(rows, key=lambda row: row.t_intended_ns)


def test_a_hundred_thousand_requests_are_sealed_and_read_in_seconds(tmp_path: Path) -> None:
    run = load_run(create_run(tmp_path, kind="load", spec={}, seed=0).path)
    line = to_json_line({name: getattr(request(0, 1, 1.0), name) for name in request(0, 1, 1.0).__slots__})
    (run.path / "requests" / "worker-0.ndjson").write_text(line * 100_000)

    started = time.process_time()  # CPU time: the machine may be busy with something else
    seal(run.path)
    requests = read_requests(run.path)

    assert len(requests) == 100_000
    assert time.process_time() - started < 15

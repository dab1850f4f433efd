"""What SQL says of requests is what Python reads of each: held against it on rows of every kind."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import defaultdict
from pathlib import Path

import duckdb
import pytest

from probes.distribution import Distribution
from probes.errors import RecordError
from probes.metric import ITL, METRICS, percentile
from probes.request import Request
from reports.request_figures import METRIC_SQL, class_begin, read_failures, read_latencies
from reports.request_table import PARQUET, open_requests
from reports.table import seal
from reports.traffic import traffic_panels
from tests.reports.recorded import SECOND, request, write_requests


def drawn(count: int, seed: int = 3) -> list[Request]:
    """Return requests of every kind: whole, failed, never sent, without tokens, of one event, long."""
    chance = random.Random(seed)
    found = []
    for index in range(count):
        at_s = index * 0.01 + chance.random()
        error = chance.choice([None, None, None, "status_502", "truncated"])
        row = request(0, index, at_s, ttft_ms=chance.expovariate(0.01) + 1, error=error)
        gaps = tuple(round(chance.expovariate(1 / 30_000)) for _ in range(chance.choice([0, 1, 5, 60])))
        if row.t_first_ns is not None:
            last = row.t_first_ns + 1000 * sum(gaps)
            row = dataclasses.replace(
                row,
                gaps_us=gaps,
                t_last_ns=last,
                t_end_ns=last + 1,
                events=len(gaps) + 1,
                tokens_out=chance.choice([None, 0, 1, len(gaps) + 1]),
            )
        elif chance.random() < 0.3:
            row = dataclasses.replace(row, t_sent_ns=None, t_end_ns=None, error="dropped")
        found.append(row)
    return found


def test_each_metric_reads_the_same_in_sql_as_in_python(tmp_path: Path) -> None:
    rows = drawn(2000)
    write_requests(tmp_path, rows)

    assert METRIC_SQL.keys() | {ITL} == METRICS.keys()
    with open_requests(tmp_path) as table:
        for name, sql in METRIC_SQL.items():
            found = table.execute(f"SELECT v FROM (SELECT {sql} AS v, index FROM requests) ORDER BY index")
            values = [value for (value,) in found.fetchall()]
            assert values == [next(iter(METRICS[name].read(row)), None) for row in rows], name


def test_latencies_are_order_statistics_of_what_was_answered_whole(tmp_path: Path) -> None:
    rows = drawn(3000)
    write_requests(tmp_path, rows)
    with open_requests(tmp_path) as table:
        found = {latency.metric: latency for latency in read_latencies(table)}

    assert found.keys() == METRICS.keys()
    for name, latency in found.items():
        reference = Distribution(name, rows)
        assert latency.count == len(reference) == sum(count for _, count in latency.classes)
        for label, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
            assert math.isclose(latency.values[label], reference.at_share(share)), (name, label)
        assert (
            class_begin(latency.classes[-1][0])
            <= latency.values["max"]
            < class_begin(latency.classes[-1][0] + 1)
        )


def test_one_gap_alone_has_every_percentile(tmp_path: Path) -> None:
    write_requests(tmp_path, [dataclasses.replace(request(0, 0, 1.0), gaps_us=(20_500,))])
    with open_requests(tmp_path) as table:
        [gaps] = [latency for latency in read_latencies(table) if latency.metric == ITL]

    assert gaps.values == dict.fromkeys(("p50", "p90", "p95", "p99", "max"), 20.5)


def ends_of_gaps(rows: list[Request], width_s: int) -> dict[int, list[float]]:
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.t_first_ns is not None:
            for gap_us, since_us in zip(row.gaps_us, itertools.accumulate(row.gaps_us), strict=True):
                found[(row.t_first_ns + 1000 * since_us) // (width_s * SECOND)].append(gap_us / 1000)
    return found


def gaps_drawn(folder: Path) -> list[dict[int, float]]:
    with open_requests(folder) as table:
        [panel] = [panel for panel in traffic_panels(table, 0) if panel.name == "gap"]
    return [
        {round(t_s - 0.5): value for t_s, value in series.points if value is not None}
        for series in panel.series
    ]


def assert_near(drawn_ms: dict[int, float], exact: dict[int, float]) -> None:
    assert drawn_ms.keys() == exact.keys()
    for number, value in exact.items():
        assert value <= drawn_ms[number] + 1e-9 <= max(value * 1.0101, 0.002) + 1e-9


@pytest.mark.parametrize("is_sealed", [True, False])
def test_gaps_stand_in_the_second_in_which_they_ended(is_sealed: bool, tmp_path: Path) -> None:
    rows = drawn(1500)
    write_requests(tmp_path, rows)
    if is_sealed:
        seal(tmp_path)
    reference = ends_of_gaps(rows, 1)

    for drawn_ms, share in zip(gaps_drawn(tmp_path), (0.5, 0.99), strict=True):
        assert_near(drawn_ms, {n: percentile(values, share) for n, values in reference.items()})


def test_so_do_those_of_many_requests_in_several_parts_that_two_threads_read(tmp_path: Path) -> None:
    """The reference sorts the gaps of each request by itself, which does not depend on the order of rows."""
    (tmp_path / "requests").mkdir()
    parts = str(tmp_path / "requests" / "part-{}.parquet")
    with duckdb.connect() as connection:
        for part in range(3):
            connection.execute(
                f"""COPY (
                    SELECT i AS index, 0 AS worker, 'e' AS endpoint, i * 500000 AS t_intended_ns,
                        i * 500000 AS t_sent_ns,
                        i * 500000 + CAST(hash(i) % 900000000 AS BIGINT) AS t_first_ns,
                        i * 500000 + 2000000000 AS t_end_ns,
                        [CAST(hash(i * 8 + k) % 400000 AS BIGINT) FOR k IN range(i % 6)] AS gaps_us
                    FROM range({part * 30_000}, {part * 30_000 + 30_000}) AS rows(i)
                ) TO '{parts.format(part)}' ({PARQUET})"""
            )
        exact = connection.execute(
            f"""SELECT t_ns // 1000000000, quantile_disc(gap / 1000, [0.5, 0.99]) FROM (
                SELECT gap, t_first_ns
                    + 1000 * CAST(sum(gap) OVER (PARTITION BY index ORDER BY place) AS BIGINT) AS t_ns
                FROM (
                    SELECT index, t_first_ns, unnest(gaps_us) AS gap, generate_subscripts(gaps_us, 1) AS place
                    FROM read_parquet('{parts.format("*")}'))) GROUP BY 1"""
        ).fetchall()

    for place, drawn_ms in enumerate(gaps_drawn(tmp_path)):
        assert_near(drawn_ms, {int(number): values[place] for number, values in exact})


def test_the_levels_of_many_requests_keep_the_highest(tmp_path: Path) -> None:
    """Three hundred thousand requests one by one, and a burst of a hundred that lasts a tenth of a second."""
    (tmp_path / "requests").mkdir()
    with duckdb.connect() as connection:
        connection.execute(
            f"""COPY (
                SELECT i AS index, 0 AS worker, 'e' AS endpoint, i * 1000000 AS t_intended_ns,
                    i * 1000000 AS t_sent_ns, i * 1000000 + 500000 AS t_end_ns FROM range(300000) AS rows(i)
                UNION ALL SELECT 0, 0, 'e', 100000000000, 100000000000, 100100000000 FROM range(100)
            ) TO '{tmp_path}/requests/worker-0.parquet' (FORMAT parquet)"""
        )
    with open_requests(tmp_path) as table:
        [panel] = [panel for panel in traffic_panels(table, 0) if panel.name == "in_flight"]
    levels = [value for _, value in panel.series[0].points if value is not None]

    assert 100 <= max(levels) <= 101
    assert min(levels) == 0
    assert len(levels) <= 2400 * 4 / 3
    assert panel.note == "as at the end of each 0.3 ms"


def test_failures_come_by_kind_with_the_first_that_was_due(tmp_path: Path) -> None:
    late, early = (
        dataclasses.replace(request(0, n, 5.0 - n, error="truncated"), error_detail=f"number {n}")
        for n in (0, 1)
    )
    write_requests(tmp_path, [late, early, request(0, 2, 1.0, error="status_502"), request(0, 3, 1.0)])
    with open_requests(tmp_path) as table:
        found = read_failures(table)

    assert [(f.error, f.count, f.status, f.example) for f in found] == [
        ("truncated", 2, 502, "number 1"),
        ("status_502", 1, 502, "the gateway has no replica"),
    ]


def test_a_part_that_is_no_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    (tmp_path / "requests" / "worker-0.parquet").write_bytes(b"damaged")

    with pytest.raises(RecordError, match="requests: cannot be read"), open_requests(tmp_path):
        pass

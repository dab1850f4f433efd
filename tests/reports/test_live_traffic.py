"""Live figures of traffic: the same numbers as the rows give, read bit by bit, and no more than is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probes.metric import METRICS, percentile
from probes.request import Request
from probes.slo import Slo, count_bad
from reports.exporter import render_page
from reports.live_metrics import traffic_figures
from reports.live_traffic import LiveTraffic, TrafficFigures, read_latest
from reports.traffic_table import HEADERS, traffic_rows
from tests.reports.recorded import SECOND, request, traffic, write_requests

T0 = 1_790_000_000 * SECOND
SLOS = (
    Slo(name="ttft_ms_p90", metric="ttft_ms", objective=0.9, bound=100),
    Slo(name="goodput", metric="goodput", objective=0.99),
)


class FakeNow:
    def __init__(self) -> None:
        self.ns = T0

    def __call__(self) -> int:
        return self.ns


def follow(run: Path, now: FakeNow, **options: int) -> LiveTraffic:
    return LiveTraffic(run, SLOS, now_ns=now, **options)


def client_row(run: Path, at_s: float, worker: int = 0, **columns: float) -> None:
    (run / "series").mkdir(exist_ok=True)
    row = {"t_ns": T0 + round(at_s * SECOND), "failed": 0, "in_flight": 0} | columns
    with (run / "series" / f"client-{worker}.ndjson").open("a") as file:
        file.write(json.dumps(row) + "\n")


def ended_by(rows: list[Request], at_s: float) -> list[Request]:
    return [row for row in rows if (row.t_end_ns or 0) <= T0 + round(at_s * SECOND)]


def test_figures_read_in_many_looks_are_those_of_all_rows_together(tmp_path: Path) -> None:
    now, rows = FakeNow(), traffic(T0)
    live = follow(tmp_path, now)
    for second in range(1, 47):
        part = [r for r in ended_by(rows, second) if (r.t_end_ns or 0) > T0 + (second - 1) * SECOND]
        write_requests(tmp_path, part)
        now.ns = T0 + second * SECOND
        live.figures()
    now.ns += 2 * SECOND
    whole = live.figures().whole

    failed = [row for row in rows if not row.is_good]
    assert (whole.ended, whole.failed) == (len(rows), len(failed))
    assert len(failed) > 5
    assert whole.errors == {"status_502": len(failed)}
    for name in ("ttft_ms", "itl_ms"):
        values = [value for row in rows if row.is_good for value in METRICS[name].read(row)]
        for percent in (50, 90, 99):
            assert whole.percentiles[name][percent] == pytest.approx(
                percentile(values, percent / 100), rel=0.01
            )
    for slo in SLOS:
        bad, total = count_bad(slo, rows, SLOS)
        assert whole.good_share[slo.name] == pytest.approx(1 - bad / total, abs=0.002)


def test_now_is_the_last_ten_seconds_only(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    write_requests(tmp_path, [request(T0, n, n / 10, error="timeout") for n in range(20)])
    now.ns = T0 + 3 * SECOND
    begun = live.figures()
    write_requests(tmp_path, [request(T0, 100 + n, 15 + n / 10, ttft_ms=70) for n in range(20)])
    now.ns = T0 + 18 * SECOND
    later = live.figures()

    assert begun.now.errors == begun.whole.errors == {"timeout": 20}
    assert (later.now.errors, later.now.ended, later.now.good_share["goodput"]) == ({}, 20, 1.0)
    assert (later.whole.errors, later.whole.ended, later.whole.good_share["goodput"]) == (
        {"timeout": 20},
        40,
        0.5,
    )
    assert later.now.percentiles["ttft_ms"][50] == pytest.approx(69.9, rel=0.01)


def test_between_two_looks_within_a_second_nothing_is_read(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    live.figures()
    write_requests(tmp_path, [request(T0, 0, 0)])
    now.ns += SECOND // 2

    assert live.figures().whole.ended == 0
    now.ns += SECOND
    assert live.figures().whole.ended == 1


def test_more_than_is_read_in_a_look_is_said_and_the_newest_rows_are_taken(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now, bytes_max=20_000)
    write_requests(tmp_path, [request(T0, n, n / 1000, ttft_ms=n) for n in range(400)])
    client_row(tmp_path, 1, arrivals=400, ended=400)
    now.ns = T0 + SECOND
    seen = live.figures()

    assert seen.is_sampled
    assert 5 < seen.whole.ended < 100
    assert seen.whole.percentiles["ttft_ms"][50] > 300
    assert "of a part" in {row[0]: row[2] for row in traffic_rows(seen)}["client"]


def test_a_line_that_is_being_written_and_a_garbled_one_do_no_harm(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    write_requests(tmp_path, [request(T0, 0, 0)])
    with (tmp_path / "requests" / "worker-0.ndjson").open("a") as file:
        file.write('{"index": 1}\nnonsense\n{"index": 2, "wor')
    now.ns = T0 + SECOND

    assert live.figures().whole.ended == 1


def test_the_last_figures_stay_when_the_record_is_sealed(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    write_requests(tmp_path, [request(T0, 0, 0)])
    client_row(tmp_path, 1, arrivals=1, ended=1)
    now.ns = T0 + SECOND
    before = live.figures()
    for part in tmp_path.rglob("*.ndjson"):
        part.unlink()
    now.ns += 2 * SECOND
    after = live.figures()

    assert before.has_begun
    assert (after.merged, after.clients, after.whole) == (before.merged, before.clients, before.whole)


def test_nothing_there_is_no_figure_and_an_empty_page() -> None:
    nowhere = LiveTraffic(Path("/nonexistent"))

    assert nowhere.figures() == TrafficFigures()
    assert not nowhere.figures().has_begun
    assert render_page(traffic_figures(nowhere)) == b""


def test_rates_are_those_of_the_last_ten_seconds_and_not_of_the_time_before_the_start(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    for second in range(41):
        sent = max(0, second - 20) * 30 if second <= 30 else 300 + (second - 30) * 10
        client_row(tmp_path, second, arrivals=sent, ended=sent // 2)
        now.ns = T0 + second * SECOND
        seen = live.figures()
        if second == 25:
            assert (seen.offered_per_s, seen.answered_per_s) == (30, 15)

    assert (seen.offered_per_s, seen.answered_per_s) == (10, 5)


def test_workers_elsewhere_whose_rows_come_at_the_end_are_shown_by_what_they_report(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    row = {"arrivals": 50, "rows": 40, "failed": 3, "in_flight": 10, "ttft_ms_p99": 81.5, "itl_ms_p99": None}
    (tmp_path / "series" / "load.ndjson").write_text(json.dumps(row) + "\n")
    whole = LiveTraffic(tmp_path).figures().whole

    assert (whole.ended, whole.failed, whole.percentiles) == (40, 3, {"ttft_ms": {99: 81.5}})


def test_the_last_whole_row_of_each_load_process_counts(tmp_path: Path) -> None:
    client_row(tmp_path, 0, arrivals=5)
    client_row(tmp_path, 1, arrivals=9)
    with (tmp_path / "series" / "client-0.ndjson").open("a") as file:
        file.write('{"arrivals": 99')
    (tmp_path / "series" / "client-1.ndjson").write_text("")
    page = render_page(traffic_figures(LiveTraffic(tmp_path))).decode()

    assert read_latest(tmp_path).keys() == {"0"}
    assert 'overproof_load_arrivals_total{worker="0"} 9.0' in page
    assert 'overproof_load_in_flight{worker="0"} 0.0' in page


def test_the_page_has_the_figures_of_the_table_in_base_units(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    write_requests(tmp_path, [request(T0, n, n / 10, ttft_ms=80) for n in range(19)])
    write_requests(tmp_path, [request(T0, 20, 2, error="timeout")])
    client_row(tmp_path, 2, arrivals=21, ended=20, failed=1, in_flight=1, lag_ms_max=2.5, cpu_pct=50)
    now.ns = T0 + 3 * SECOND
    rows = {row[0]: row[1:] for row in traffic_rows(live.figures(), live.slos)}
    page = render_page(traffic_figures(live)).decode().splitlines()

    assert all(len(row) == len(HEADERS) for row in traffic_rows(live.figures(), live.slos))
    assert rows["ttft ms"] == ("p50 79.9  p90 79.9  p99 79.9",) * 2
    assert rows["errors"] == ("1 timeout", "1 timeout")
    assert rows["goodput"] == ("✗ 95.00%", "✗ 95.00%, wants 99%")
    assert rows["ttft_ms_p90"] == ("✓ 95.00%", "✓ 95.00%, wants 90%")
    assert 'overproof_load_ttft_seconds{percentile="50",span="10s"} 0.0799' in [line[:67] for line in page]
    assert 'overproof_load_errors_total{kind="timeout"} 1.0' in page
    assert 'overproof_load_client_lag_seconds{worker="0"} 0.0025' in page
    assert 'overproof_load_client_cpu_ratio{worker="0"} 0.5' in page
    assert 'overproof_load_promise_good_ratio{promise="goodput",span="run"} 0.95' in page
    assert 'overproof_load_promise_wanted_ratio{promise="goodput"} 0.99' in page


def test_no_row_is_wider_than_a_terminal_at_its_worst(tmp_path: Path) -> None:
    now = FakeNow()
    live = follow(tmp_path, now)
    kinds = ("connection_refused", "status_503", "timeout", "truncated")
    rows = [request(T0, n, n / 1000, ttft_ms=12345.6 + n) for n in range(500)]
    write_requests(tmp_path, [*rows, *(request(T0, 600 + n, 1, error=kinds[n % 4]) for n in range(400))])
    client_row(tmp_path, 1, arrivals=12_345_678, ended=12_345_678, failed=1_234_567, dropped=1_234_567)
    now.ns = T0 + 15 * SECOND // 10
    widths = [max(map(len, column)) for column in zip(*traffic_rows(live.figures(), live.slos), strict=True)]

    assert sum(widths) + 4 <= 80

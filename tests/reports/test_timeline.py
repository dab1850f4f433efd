"""The timeline: a record in, panels, bands and markers out."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from probes.json_types import JsonObject
from probes.request import Request
from reports.panel import Panel, Point, describe, thin, with_gaps
from reports.record import create_run
from reports.request_table import open_requests
from reports.run import Run, load_run
from reports.timeline import Timeline, build_timeline
from reports.traffic import interval_s, traffic_panels
from tests.reports.recorded import (
    END_S,
    INJECT_S,
    RECOVER_S,
    SECOND,
    UNDO_S,
    game_day,
    request,
    traffic,
    write_requests,
)


def panel(timeline: Timeline, name: str) -> Panel:
    return next(panel for panel in timeline.panels if panel.name == name)


def values(panel: Panel, label: str) -> dict[float, float | None]:
    return dict(next(series for series in panel.series if series.label == label).points)


def panels_of(requests: list[Request]) -> list[Panel]:
    with tempfile.TemporaryDirectory() as folder:
        write_requests(Path(folder), requests)
        with open_requests(Path(folder)) as table:
            return traffic_panels(table, 0)


def interval_of(requests: list[Request]) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        write_requests(Path(folder), requests)
        with open_requests(Path(folder)) as table:
            return interval_s(table)


def sampled(out: Path, rows: list[JsonObject], *, series: str = "gpu") -> Run:
    with create_run(out, kind="burnin", spec={}, seed=0) as writer:
        for row in rows:
            writer.sample(series, row | {"t_ns": writer.header.started_ns + row["t_ns"]})
    return load_run(writer.path)


def test_a_game_day_has_its_fault_its_moments_and_the_traffic_of_the_run_inside_it(tmp_path: Path) -> None:
    timeline = build_timeline(game_day(tmp_path))

    [fault] = [band for band in timeline.bands if band.kind == "fault"]
    assert (fault.label, fault.start_s, fault.end_s) == ("process-kill", INJECT_S, UNDO_S + 0.1)
    assert [(m.name, m.t_s) for m in timeline.markers] == [
        ("t_inject", 20.0),
        ("t_detect", 20.6),
        ("t_recover", 23.0),
        ("t_redundant", 26.0),
    ]
    names = [panel.name for panel in timeline.panels]
    assert names == ["requests", "in_flight", "ttft", "gap", "client_lag", "lab.replicas_ready"]
    assert timeline.end_s >= END_S
    assert timeline.problems == ()


def test_failures_stand_in_the_seconds_of_the_fault_and_in_no_other(tmp_path: Path) -> None:
    failed = values(panel(build_timeline(game_day(tmp_path)), "requests"), "failed")

    assert sum(value or 0 for value in failed.values()) > 3
    assert {t_s for t_s, value in failed.items() if value} <= {20.0, 21.0, 22.0, 23.0}
    assert INJECT_S in failed
    assert failed[RECOVER_S + 2] == 0


def test_a_fault_without_an_undo_has_no_end(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="gameday", spec={}, seed=0) as writer:
        writer.event("fault", "fault.injected", id="1", fault="netem", subject="host:a")

    [band] = build_timeline(load_run(writer.path)).bands

    assert (band.label, band.end_s) == ("netem", None)


def test_moments_seen_while_it_ran_are_shown_before_anybody_judged(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="gameday", spec={}, seed=0) as writer:
        writer.event("fault", "fault.injected", id="1", fault="kill")
        writer.event("controller", "t_detect", after_inject_s=0.1)

    assert [m.name for m in build_timeline(load_run(writer.path)).markers] == ["t_inject", "t_detect"]


def test_every_request_is_counted_once_as_arrival_and_once_as_good_or_failed() -> None:
    requests = traffic(0)
    [rates, *_] = panels_of(requests)
    totals = {series.label: sum(v or 0 for _, v in series.points[:-1]) for series in rates.series}

    assert totals["arrivals"] == len(requests)
    assert totals["good"] == sum(request.is_good for request in requests)
    assert totals["failed"] == sum(not request.is_good for request in requests) > 0


def test_requests_in_flight_rise_when_sent_and_fall_when_ended() -> None:
    first, second = request(0, 0, 1.0), request(0, 1, 1.2)
    panels = {p.name: p for p in panels_of([first, second])}

    moments = (first.t_sent_ns, second.t_sent_ns, first.t_end_ns, second.t_end_ns)
    times_s = [t_ns / 1e9 for t_ns in moments if t_ns is not None]
    assert panels["in_flight"].series[0].points == tuple(zip(times_s, (1.0, 2.0, 1.0, 0.0), strict=True))


def test_first_tokens_stand_in_the_second_in_which_their_request_was_sent() -> None:
    slow = request(0, 0, 1.5, ttft_ms=3000)
    panels = {p.name: p for p in panels_of([slow, request(0, 1, 1.6, ttft_ms=100)])}
    p50, p95 = panels["ttft"].series

    assert [t_s for t_s, _ in p95.points] == [1.5]
    assert math.isclose(p50.points[0][1] or 0, 99.9)
    assert math.isclose(p95.points[0][1] or 0, 2999.9)


def test_a_second_without_an_answer_is_a_gap_not_a_line() -> None:
    panels = {p.name: p for p in panels_of([request(0, 0, 1.0), request(0, 1, 4.0)])}

    assert [v is None for _, v in panels["ttft"].series[0].points] == [False, True, True, False]


def test_gaps_between_tokens_stand_where_they_ended_and_the_worst_is_seen() -> None:
    stalled = dataclasses.replace(request(0, 0, 1.0, ttft_ms=0), gaps_us=(20_000, 2_500_000, 20_000))
    panels = {p.name: p for p in panels_of([stalled])}
    p99 = dict(panels["gap"].series[1].points)

    assert p99[3.5] == 2500.0
    assert p99[1.5] == 20.0


def test_long_runs_are_counted_in_wider_intervals() -> None:
    assert interval_of([request(0, 0, 0.0), request(0, 1, 600.0)]) == 1
    assert interval_of([request(0, 0, 0.0), request(0, 1, 24 * 3600.0)]) == 300


def test_requests_that_were_never_sent_are_arrivals_that_failed() -> None:
    lost = dataclasses.replace(
        request(0, 0, 1.0, error="dropped"), t_sent_ns=None, t_end_ns=None, status=None
    )
    [rates, *_] = panels_of([lost])

    assert {s.label: s.points[0][1] for s in rates.series} == {"arrivals": 1, "good": 0, "failed": 1}


def test_each_figure_has_a_panel_with_one_line_per_subject(tmp_path: Path) -> None:
    rows: list[JsonObject] = [
        {
            "t_ns": k * SECOND,
            "device": f"gpu:{n}",
            "temperature_c": 40 + k + n,
            "power_w": 300.0,
            "pid": 4,
            "errors": {},
        }
        for k in range(5)
        for n in range(2)
    ]
    timeline = build_timeline(sampled(tmp_path, rows))

    assert [(p.name, p.title, p.unit) for p in timeline.panels] == [
        ("gpu.temperature_c", "Temperature", "°C"),
        ("gpu.power_w", "Power", "W"),
    ]
    assert [series.label for series in timeline.panels[0].series] == ["gpu:0", "gpu:1"]
    assert dict(timeline.panels[0].series[1].points)[3.0] == 44


def test_types_of_one_device_are_lines_of_their_own(tmp_path: Path) -> None:
    rows: list[JsonObject] = [
        {"t_ns": k * SECOND, "device": "cpu", "format": dtype, "tflops": 1.0 + k}
        for k in range(3)
        for dtype in ("fp32", "bf16")
    ]
    [only] = build_timeline(sampled(tmp_path, rows, series="matmul")).panels

    assert [series.label for series in only.series] == ["cpu bf16", "cpu fp32"]


def test_replicas_that_serve_are_counted_at_each_sample(tmp_path: Path) -> None:
    rows: list[JsonObject] = [
        {"t_ns": k * SECOND, "subject": f"replica:{n}", "is_serving": n != 1 or k > 1}
        for k in range(3)
        for n in range(3)
    ]
    [only] = build_timeline(sampled(tmp_path, rows, series="lab")).panels

    assert (only.title, only.series[0].points) == ("Replicas that serve", ((0.0, 2), (1.0, 2), (2.0, 3)))


def test_a_sampler_that_fell_silent_leaves_a_gap(tmp_path: Path) -> None:
    rows: list[JsonObject] = [
        {"t_ns": k * SECOND, "gpu": "a", "power_w": 300 + k} for k in (0, 1, 2, 3, 12, 13)
    ]
    [only] = build_timeline(sampled(tmp_path, rows)).panels

    assert [(t_s, v) for t_s, v in only.series[0].points if v is None] == [(4.0, None)]


def test_rows_without_time_or_with_odd_values_are_not_drawn_and_do_no_harm(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.sample("gpu", {"temperature_c": 40})
        writer.sample("gpu", {"t_ns": "soon", "temperature_c": 40})
        writer.sample(
            "gpu", {"t_ns": writer.header.started_ns, "temperature_c": None, "power_w": float("nan")}
        )

    timeline = build_timeline(load_run(writer.path))

    assert (timeline.panels, timeline.problems) == ((), ())


def test_of_too_many_subjects_the_extremes_are_shown_and_it_is_said(tmp_path: Path) -> None:
    rows: list[JsonObject] = [
        {"t_ns": k, "gpu": f"{n:03}", "power_w": n + k} for n in range(100) for k in range(2)
    ]
    [only] = build_timeline(sampled(tmp_path, rows)).panels

    assert [series.label for series in only.series] == [f"{n:03}" for n in (*range(8), *range(92, 100))]
    assert only.note == "the 16 of 100 with the lowest and highest means"


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = sampled(tmp_path, [{"t_ns": 0, "gpu": "a", "power_w": 1}])
    (run.path / "series" / "bad.parquet").write_bytes(b"damaged")

    timeline = build_timeline(run)

    assert len(timeline.problems) == 1
    assert "bad.parquet: cannot be read" in timeline.problems[0]


def test_an_empty_run_has_an_empty_timeline(tmp_path: Path) -> None:
    timeline = build_timeline(load_run(create_run(tmp_path, kind="load", spec={}, seed=0).path))

    assert (timeline.panels, timeline.bands, timeline.markers, timeline.problems) == ((), (), (), ())


points = st.lists(st.tuples(st.floats(0, 1e4), st.none() | st.floats(-1e6, 1e6)), max_size=400).map(
    lambda found: sorted(found, key=lambda point: point[0])
)


@given(points, st.integers(10, 60))
def test_thinning_keeps_the_extremes_and_invents_nothing(found: list[Point], most: int) -> None:
    thinned = thin(found, most)
    known = [value for _, value in found if value is not None]
    kept = [value for _, value in thinned if value is not None]

    assert set(thinned) <= set(found)
    assert [t_s for t_s, _ in thinned] == sorted(t_s for t_s, _ in thinned)
    assert len(thinned) <= max(len(found) if len(found) <= most else 0, 4 * most // 3 + 8)
    assert (min(kept), max(kept)) == (min(known), max(known)) if known else kept == []


@given(points)
def test_gaps_are_added_and_no_point_is_lost(found: list[Point]) -> None:
    spaced = with_gaps(found)

    remaining = iter(spaced)
    assert all(point in remaining for point in found)  # each, in this order
    assert all(value is None for t_s, value in spaced if (t_s, value) not in found)


def test_a_panel_is_described_in_words_with_its_extremes() -> None:
    [only] = [p for p in panels_of([request(0, 0, 1.0)]) if p.name == "client_lag"]

    assert describe(only) == "client lag: lowest 0.2 ms, highest 0.2 ms at 1.5 s"

"""The table of devices and the heat map of links, from a burn-in's own record."""

from __future__ import annotations

from pathlib import Path

from probes.outcome import Outcome
from reports.device_rows import read_devices
from reports.html import render_html
from reports.record import create_run
from reports.run import load_run
from reports.timeline import build_timeline
from tests.reports.nodes import gpu_node
from tests.reports.recorded import finding, game_day


def test_each_device_has_its_verdict_what_speaks_against_it_and_its_figures(tmp_path: Path) -> None:
    devices = read_devices(gpu_node(tmp_path))

    assert devices is not None
    rows = {row.name: row for row in devices.rows}
    assert {name: (row.outcome, row.against) for name, row in rows.items()} == {
        "cuda:0": (None, ""),
        "cuda:1": (Outcome.PASS, ""),
        "cuda:2": (Outcome.FAIL, "throttle"),
        "cuda:3": (Outcome.INCONCLUSIVE, "heat"),
    }
    hot = rows["cuda:2"].figures
    assert (hot["bf16 TFLOPS"], hot["power max W"], hot["SM clock min MHz"]) == (660.0, 700.0, 1200.0)
    assert round(hot["held back, mean %"] or 0, 1) == round(60 * 49 / 90, 1)
    assert rows["cuda:0"].figures["held back, mean %"] == 0


def test_the_links_show_who_sent_to_whom_and_not_both_ways_together(tmp_path: Path) -> None:
    devices = read_devices(gpu_node(tmp_path))

    assert devices is not None
    assert devices.links == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert len(devices.cells) == 12
    assert {cell.gbps for cell in devices.cells if 2 in (cell.row, cell.column)} == {200.0}
    levels = {(cell.gbps, cell.level) for cell in devices.cells}
    assert len(levels) == 2
    assert max(level for gbps, level in levels if gbps == 200.0) < min(
        level for gbps, level in levels if gbps == 390.0
    )


def test_a_link_that_failed_is_marked_whatever_its_speed(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.event("agent", "inventory", devices=[{"name": "cuda:0"}, {"name": "cuda:1"}])
        for receiver in ("cuda:0", "cuda:1"):
            row = {"t_ns": writer.header.started_ns, "link": "cuda:0-cuda:1", "receiver": receiver}
            writer.sample("links", row | {"gbps": 400.0})
        writer.write_findings([finding("link", "link:cuda:0-cuda:1", Outcome.FAIL)])
    devices = read_devices(load_run(writer.path))

    assert devices is not None
    assert [cell.is_broken for cell in devices.cells] == [True, True]


def test_only_a_burn_in_has_devices_and_one_without_samples_has_no_figures(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.event("agent", "inventory", devices=[{"name": "cpu:0", "model": "<b>x</b>"}, "odd", {}])
    run = load_run(writer.path)
    devices = read_devices(run)

    assert read_devices(game_day(tmp_path / "day")) is None
    assert devices is not None
    assert [(row.name, row.outcome, dict(row.figures)) for row in devices.rows] == [("cpu:0", None, {})]
    assert "<b>x" not in render_html(run)


def test_throttling_stands_by_reason_of_the_gpu_that_was_held_back_most(tmp_path: Path) -> None:
    [panel] = [p for p in build_timeline(gpu_node(tmp_path)).panels if p.name == "gpu.held_pct"]
    highest = {s.label: max(value or 0 for _, value in s.points) for s in panel.series}

    assert highest == {
        "hardware heat": 60.0,
        "hardware slowdown": 0.0,
        "software heat": 0.0,
        "power brake": 0.0,
        "power cap (seen)": 100.0,
    }


def test_a_core_is_shown_by_the_figure_that_it_is_judged_by(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        writer.event("agent", "inventory", devices=[{"name": "cpu:0"}])
        row = {"t_ns": writer.header.started_ns, "device": "cpu:0", "format": "fp32"}
        writer.sample("matmul", row | {"tflops": 0.01, "busy_tflops": 0.08, "busy_pct": 12.5})
    devices = read_devices(load_run(writer.path))

    assert devices is not None
    assert devices.rows[0].figures == {"fp32 TFLOPS while busy": 0.08}

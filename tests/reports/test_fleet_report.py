"""The report of a fleet: counts, who is against whom, lists for other programs; hostile names stay text."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from burnin.fleet.judging import judge_fleet
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.fleet_files import LISTS
from reports.fleet_heat import read_heat
from reports.fleet_sheet import build_fleet_sheet
from reports.fleet_tables import FleetTables
from reports.html import render_html
from reports.publish import publish
from reports.record import write_findings
from reports.run import Run, load_run
from reports.session import judge_completeness, rejudge
from reports.terminal import print_result
from tests.burnin.fleet.fleet_record import FleetRecord, fails

EVIL = "<img src=x onerror=alert(1)>"


def _trial(number: int, hosts: list[str], busbw: float | None, design: str = "domains") -> JsonObject:
    is_done = busbw is not None
    return {
        "round": 1,
        "trial": f"t{number}",
        "design": design,
        "hosts": hosts,
        "path": "full",
        "collective": "all_reduce" if is_done else "",
        "size_bytes": 1 << 30,
        "ranks": 8 * len(hosts),
        "iterations": 20,
        "busbw_gbps": busbw,
        "busbw_worst_gbps": busbw,
        "wrong_elements": 0,
        "state": "done" if is_done else "hung",
        "is_complete": is_done,
        "transport": "NET/IB",
        "seconds": 30.0,
        "detail": "",
        "blamed": [],
    }


def _judged(record: FleetRecord, folder: Path) -> Run:
    run = record.write(folder)
    rejudge(run, judge_fleet)
    return load_run(run.path)


def _read(run: Run, name: str) -> list[str]:
    return (run.path / name).read_text().splitlines()


def _sick(folder: Path) -> Run:
    record = FleetRecord(hosts=4, outcome={"gpu00002": "fail"}, state={"gpu00003": ("lost", EVIL)})
    record.findings = [fails("gpu00002")]
    record.silent = ["gpu00004"]
    return _judged(record, folder)


def test_each_host_stands_in_exactly_one_list_and_the_undecided_in_neither_of_the_others(
    tmp_path: Path,
) -> None:
    run = _sick(tmp_path)

    publish(run)

    assert {name: _read(run, name) for name in LISTS.values()} == {
        "passing_nodes.txt": ["gpu00001"],
        "failing_nodes.txt": ["gpu00002"],
        "undecided_nodes.txt": ["gpu00003", "gpu00004"],
    }


def test_a_host_that_only_the_fleet_accuses_is_no_passing_one(tmp_path: Path) -> None:
    record = FleetRecord(digest=lambda host, gpu: "bb" if host == "gpu00002" else "aa")
    run = _judged(record, tmp_path)

    publish(run)

    assert _read(run, "failing_nodes.txt") == ["gpu00002"]


def test_nobody_passes_in_a_run_that_did_not_come_to_its_end(tmp_path: Path) -> None:
    run = _judged(FleetRecord(hosts=3, is_finished=False), tmp_path)

    publish(run)

    assert _read(run, "passing_nodes.txt") == []
    assert len(_read(run, "undecided_nodes.txt")) == 3


def test_the_table_for_the_asset_system_has_a_row_for_each_gpu_and_for_hosts_without(tmp_path: Path) -> None:
    run = _sick(tmp_path)

    publish(run)

    rows = list(csv.DictReader(_read(run, "assets.csv")))
    assert len(rows) == 2 * 8 + 2
    first = rows[0]
    assert (first["host"], first["slot"], first["gpu_serial"]) == ("gpu00001", "0000:00:00.0", "S-gpu00001-0")
    assert float(first["tflops bf16"]) > 600
    assert [r["gpu_verdict"] for r in rows if r["host"] == "gpu00002"][:2] == ["fail", "pass"]


def test_a_fleet_without_any_figure_has_its_lists_and_table_too(tmp_path: Path) -> None:
    record = FleetRecord(hosts=2)
    record.silent = record.names()
    run = _judged(record, tmp_path)

    publish(run)

    assert len(list(csv.DictReader(_read(run, "assets.csv")))) == 2


def test_names_that_came_from_outside_stay_text_in_page_and_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = FleetRecord(
        hosts=4, versions=lambda host: {"kernel": f"\x1b]0;{EVIL}" if host == "gpu00001" else "5"}
    )
    record.net = [_trial(1, ["gpu00001", EVIL], 300.0)]
    record.state = {"gpu00002": ("lost", "\x1b[2J" + EVIL)}
    run = _judged(record, tmp_path)

    page = render_html(run)
    print_result(run, as_json=False)

    assert EVIL not in page
    assert "\x1b" not in page
    assert "\x1b[2J" not in capsys.readouterr().out


def test_the_heat_map_shows_the_smallest_group_and_there_the_slowest(tmp_path: Path) -> None:
    names = FleetRecord(hosts=4).names()
    record = FleetRecord(hosts=4)
    record.net = [
        _trial(0, names, 350.0),
        _trial(1, names[:2], 300.0),
        _trial(2, names[:2], 150.0, "confirm"),
    ]
    record.net += [_trial(3, names[2:], 300.0), _trial(4, [names[0], names[2]], 300.0)]
    record.net += [_trial(5, [names[1], names[3]], None)]

    with FleetTables(record.write(tmp_path)) as tables:
        heat = read_heat(tables)

    assert heat is not None
    found = {(c.row, c.column): (c.hosts, None if c.share is None else round(c.share, 2)) for c in heat.cells}
    assert found == {
        (0, 1): (2, 0.5),
        (0, 2): (2, 1.0),
        (0, 3): (4, 1.0),
        (1, 2): (4, 1.0),
        (1, 3): (2, 0.0),
        (2, 3): (2, 1.0),
    }


@pytest.mark.parametrize(("hosts", "rows", "kind"), [(64, 64, "host"), (160, 20, "domain")])
def test_many_hosts_are_shown_by_domain(tmp_path: Path, hosts: int, rows: int, kind: str) -> None:
    record = FleetRecord(hosts=hosts, gpus=0)
    names = record.names()
    record.net = [_trial(i, names[i : i + 8], 300.0) for i in range(0, hosts, 8)]

    with FleetTables(record.write(tmp_path)) as tables:
        heat = read_heat(tables)

    assert heat is not None
    assert (len(heat.labels), heat.kind) == (rows, kind)


def test_the_terminal_of_a_thousand_hosts_fits_a_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = FleetRecord(hosts=1000, gpus=0)
    record.state = dict.fromkeys(record.names()[:300], ("unreachable", "no route to host"))
    run = _judged(record, tmp_path)

    print_result(run, as_json=False)

    out = capsys.readouterr().out
    assert "1,000 hosts, 700 PASS, 0 FAIL, 300 INCONCLUSIVE, 300 unreachable" in out
    assert len(out.splitlines()) < 80


def test_rows_stand_in_the_order_that_people_count_in_whatever_the_names_hold(tmp_path: Path) -> None:
    record = FleetRecord(hosts=3, gpus=0, rack_of=lambda index: ("rack10", "rack\u00b2", "rack2")[index])
    record.net = [_trial(0, record.names(), 300.0)]

    with FleetTables(record.write(tmp_path)) as tables:
        heat = read_heat(tables)

    assert heat is not None
    assert heat.labels == ("gpu00003", "gpu00001", "gpu00002")


def test_hosts_against_which_the_same_speaks_take_one_line_and_others_keep_theirs(tmp_path: Path) -> None:
    run = FleetRecord(hosts=5).write(tmp_path)
    behind = Finding(
        rule="network-coverage",
        subject="fleet:x/behind",
        outcome=Outcome.INCONCLUSIVE,
        observed="3 hosts hang on an accused part",
        expected="each is tested",
        evidence={"hosts": ["gpu00001", "gpu00002", "gpu00003"]},
        next_step="mend the part",
    )
    slow = replace(behind, rule="network", outcome=Outcome.FAIL, evidence={"hosts": ["gpu00003"]})
    write_findings(run.path, [behind, slow, judge_completeness(run)])

    sheet = build_fleet_sheet(load_run(run.path))

    assert sheet is not None
    assert [(alike.hosts, alike.verdict.outcome) for alike in sheet.decided_against] == [
        (("gpu00003",), Outcome.FAIL),
        (("gpu00001", "gpu00002"), Outcome.INCONCLUSIVE),
    ]
    assert (sheet.more_against, sheet.counts["PASS"]) == (0, 2)

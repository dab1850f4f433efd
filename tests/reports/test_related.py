"""Which runs are told to belong to a game day: by names that stand in both records, and by nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from probes.event import Event
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.history import build_history, history_document, render_lines
from reports.publish import publish
from reports.record import RUN_FILE, create_run
from reports.related import nodes_of, related_runs, runs_beside
from reports.run import FINISHED, Run, load_run
from tests.reports.recorded import SECOND, finding

HOUR_S = 3600.0
DAY_S = 2 * HOUR_S  # when the game day begins, from the first of all runs
Happening = tuple[str, JsonObject]


def record(
    out: Path,
    kind: str,
    *,
    begins_s: float,
    lasts_s: float = 600.0,
    host: str = "bench",
    happenings: Iterable[Happening] = (),
    spec: JsonObject | None = None,
    path: Path | None = None,
) -> Run:
    """Record a run that began so long after the first."""
    with create_run(
        out, kind=kind, spec=spec or {}, seed=1, host=host, path=path, is_child=path is not None
    ) as writer:
        begun_ns = 1_790_000_000 * SECOND + round(begins_s * SECOND)
        header = json.loads((writer.path / RUN_FILE).read_text()) | {"started_ns": begun_ns}
        (writer.path / RUN_FILE).write_text(json.dumps(header))
        for what, data in (*happenings, (FINISHED, {})):
            ended_ns = begun_ns + round(lasts_s * SECOND)
            writer.append_event(Event(t_ns=ended_ns, host=host, source="t", kind=what, data=data))
        writer.write_findings([finding("completeness", f"run:{kind}", Outcome.PASS)])
    return load_run(writer.path)


def armed(**captured: object) -> Happening:
    return "fault.armed", {"id": "f1", "fault": "x", "subject": "s", "captured": captured}


def answered(url: str) -> Happening:
    return "endpoint.answered", {"url": url, "model": "m", "endpoint": "main"}


def day_on(out: Path, *happenings: Happening, **more: JsonObject) -> Run:
    return record(out, "gameday", begins_s=DAY_S, happenings=happenings, host="laptop", **more)


def told(day: Run) -> list[tuple[str, str]]:
    return [(one.run_id, one.when) for one in related_runs(day, runs_beside(day))]


def test_of_the_burn_ins_of_a_node_the_last_before_and_the_first_after_are_told(tmp_path: Path) -> None:
    record(tmp_path, "burnin", begins_s=0, host="gpu-7")
    last = record(tmp_path, "burnin", begins_s=HOUR_S, host="gpu-7")
    first = record(tmp_path, "burnin", begins_s=3 * HOUR_S, host="gpu-7")
    record(tmp_path, "burnin", begins_s=4 * HOUR_S, host="gpu-7")
    record(tmp_path, "burnin", begins_s=HOUR_S, host="gpu-71")
    day = day_on(tmp_path, armed(host={"name": "gpu-7"}))

    assert told(day) == [
        (last.header.id, "ended 50 min 00 s before it began"),
        (first.header.id, "began 50 min 00 s after its end"),
    ]


def test_each_node_of_a_fleet_has_its_own_last_burn_in(tmp_path: Path) -> None:
    hosts = [{"name": "gpu-7", "access": {"address": "10.0.0.7"}}, {"name": "gpu-8", "access": None}]
    fleet = record(tmp_path, "fleet", begins_s=0, spec={"profile": "intake", "fleet": {"hosts": hosts}})
    alone = record(tmp_path, "burnin", begins_s=HOUR_S, host="gpu-7")
    day = day_on(tmp_path, armed(kube_fault="pod.kill", hit_pods=[{"node": "gpu-7"}, {"node": "gpu-8"}]))

    assert nodes_of(fleet) == {"gpu-7", "gpu-8", "10.0.0.7"}
    assert [(one.run_id, one.nodes) for one in related_runs(day, runs_beside(day))] == [
        (fleet.header.id, ("gpu-7", "gpu-8")),
        (alone.header.id, ("gpu-7",)),
    ]


def test_a_simulated_fleet_has_tested_no_node(tmp_path: Path) -> None:
    spec: JsonObject = {"simulated": True, "fleet": {"hosts": [{"name": "gpu-7"}]}}
    record(tmp_path, "fleet", begins_s=0, spec=spec)

    assert told(day_on(tmp_path, armed(host={"name": "gpu-7"}))) == []


def test_a_load_at_the_same_time_on_the_same_endpoint_is_told_with_how_long(tmp_path: Path) -> None:
    url = "http://serve-1:8000"
    load = record(tmp_path, "load", begins_s=DAY_S - 60, lasts_s=360, happenings=[answered(url)])
    record(tmp_path, "load", begins_s=DAY_S - 60, happenings=[answered("http://serve-2:8000")])
    day = day_on(tmp_path)
    own = record(
        tmp_path, "load", begins_s=DAY_S, host="laptop", happenings=[answered(url)], path=day.path / "load"
    )

    assert told(load_run(day.path)) == [
        (own.header.id, "inside it"),
        (load.header.id, "at the same time, for 5 min 00 s"),
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"])
def test_a_loopback_address_is_the_clients_own_machine_and_no_other(tmp_path: Path, url: str) -> None:
    assert nodes_of(record(tmp_path, "load", begins_s=0, host="bench", happenings=[answered(url)])) == {
        "bench"
    }


def test_where_no_record_names_a_node_nothing_is_claimed(tmp_path: Path) -> None:
    record(tmp_path, "burnin", begins_s=HOUR_S, host="laptop")  # the controller's machine was not hit

    assert told(day_on(tmp_path, armed(host={"name": "gpu-7"}))) == []
    assert told(day_on(tmp_path, armed(victims=[{"name": "laptop"}]))) == []


@pytest.mark.parametrize("spoilt", ["{}", "no JSON", '{"schema_version": 99}'])
def test_a_spoilt_record_beside_it_hides_nothing_else(tmp_path: Path, spoilt: str) -> None:
    good = record(tmp_path, "burnin", begins_s=HOUR_S, host="gpu-7")
    bad = record(tmp_path, "fleet", begins_s=0, spec={"fleet": {"hosts": [{"no": "name"}, 3]}})
    (record(tmp_path, "burnin", begins_s=0, host="gpu-7").path / RUN_FILE).write_text(spoilt)
    day = day_on(tmp_path, armed(host={"name": "gpu-7"}))

    assert [run_id for run_id, _ in told(day)] == [good.header.id]
    assert bad.header.id not in str(told(day))


def test_report_history_and_its_page_link_to_them(tmp_path: Path) -> None:
    runs = tmp_path / "all runs"
    burnin = record(runs, "burnin", begins_s=HOUR_S, host="gpu-7", spec={"profile": "quick"})
    day = day_on(runs, armed(host={"name": "gpu-7"}), spec={"title": "a node reboots"})
    publish(burnin)
    publish(day)
    command = [
        sys.executable,
        "-P",
        "-m",
        "overproof",
        "history",
        str(runs),
        "--html",
        str(tmp_path / "h.html"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    groups = build_history(runs, last=9)
    document = history_document(groups)

    assert done.returncode == 0, done.stderr
    said = f"↔ ✓ Burn-in quick {burnin.header.id} (gpu-7): ended 50 min 00 s before it began"
    assert f"      {said}" in list(render_lines(groups))
    assert said in done.stdout
    assert [run["related"] for group in document["groups"] for run in group["runs"]][-1] == [
        {
            "title": "Burn-in quick",
            "run_id": burnin.header.id,
            "path": str(burnin.path),
            "outcome": "pass",
            "nodes": ["gpu-7"],
            "when": "ended 50 min 00 s before it began",
        }
    ]
    assert f'href="../{burnin.header.id}/report.html"' in (day.path / "report.html").read_text()
    page = (tmp_path / "h.html").read_text()
    assert page.count(f'href="all%20runs/{burnin.header.id}/report.html"') == 2

"""A whole game day whose fault the site's own alert has to notice, with a real Alertmanager."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from experiments.lab.control import ask_lab
from probes.errors import SuiteError
from probes.outcome import Outcome
from reports.run import load_run
from tests.experiments.alertmanagers import PROGRAM, post_alert, running_alertmanager
from tests.experiments.test_gameday import BY_A_BUSY_MACHINE, Day, end_of, run_of, write_experiment
from tests.processes import start_job

FOR_S = 1.0
pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy


@contextlib.contextmanager
def rule(folder: Path, url: str) -> Iterator[None]:
    """What a rule of the site's Prometheus does: an alert for each replica that is down for a while."""
    leaving = threading.Event()
    down_since: dict[str, float] = {}

    def evaluate() -> None:
        while not leaving.wait(0.3):
            run = run_of(folder)
            with contextlib.suppress(SuiteError):
                rows = ask_lab(run.path / "lab", {"do": "status"}, timeout_s=2)["replicas"] if run else []
                # A replica that starts is not down: the rule looks once all have served.
                if run is not None and run.events_of("fault.injected"):
                    for name in (str(row["name"]) for row in rows if not row["is_serving"]):
                        # Its clock is known to tenths of a second, by the Date of its answers.
                        if time.monotonic() - down_since.setdefault(name, time.monotonic()) > FOR_S:
                            post_alert(url, "ReplicaDown", replica=name, severity="page")

    thread = threading.Thread(target=evaluate)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join(10)


def game_day(folder: Path, url: str, *arguments: str) -> Day:
    folder.mkdir()
    path = write_experiment(folder)
    document = yaml.safe_load(path.read_text())
    document["extensions"][0]["alerts"] = {
        "url": url, "filters": ['alertname="ReplicaDown"', 'severity="page"'], "within_s": 10,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    with rule(folder, url):
        return end_of(start_job(["gameday", "run", str(path), *arguments], folder), folder)


@pytest.mark.needs(PROGRAM)
def test_the_sites_own_alert_is_what_noticed_the_fault_and_the_report_says_so(tmp_path: Path) -> None:
    with running_alertmanager(tmp_path / "site") as url:
        post_alert(url, "ReplicaDown", replica="of-yesterday", severity="page")
        day = game_day(tmp_path / "day", url, "--seed", "3")
    found = day.finding("detection")
    summary = (day.run.path / "summary.md").read_text()
    page = (day.run.path / "report.html").read_text()

    assert found.outcome is Outcome.PASS, day.log
    assert day.spoiled() <= BY_A_BUSY_MACHINE, day.log
    assert "by the site's alert ReplicaDown (replica=" in found.observed
    assert "1 that fired before the fault did not count" in found.observed
    assert found.evidence["t_harm_s"] <= found.evidence["t_detect_s"] <= 10
    assert "| by the site's alert ReplicaDown" in summary
    assert "first harm" in summary
    assert "</span> by itself</td>" in page
    assert load_run(day.run.path).header.spec["alerts"]["within_s"] == 10

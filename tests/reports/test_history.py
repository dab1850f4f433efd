"""All runs of a folder: grouped, compared, drawn, and deaf to what a target sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.history import build_history, history_document, render_lines
from reports.history_page import render_history
from reports.record import create_run
from reports.run import load_run
from tests.reports.hostile import TEXTS
from tests.reports.load_runs import SPEC, Truth, record_run
from tests.reports.recorded import finding, game_day, judged

CALM = Truth(between=0.01, requests=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good runs, a slow one under other promises, a game day, and one of a newer overproof."""
    out = tmp_path_factory.mktemp("runs")
    for seed in range(4):
        record_run(out, seed, CALM)
    failed = [finding("slo", "slo:ttft_ms_p95", Outcome.FAIL, "60 % of 300 values")]
    promises = SPEC | {"slos": [{"metric": "ttft_ms", "statistic": "p95", "bound": 90.0}]}
    record_run(out, 9, Truth(scale=1.5, between=0.01, requests=300), spec=promises, findings=failed)
    game_day(out)
    (out / "newer").mkdir()
    (out / "newer" / "run.json").write_text('{"schema_version": 99}')
    return out


def test_runs_are_grouped_by_workload_and_the_latest_is_compared_with_those_before(folder: Path) -> None:
    groups = {group.title: group for group in build_history(folder, last=100)}
    chat = groups["Load test chat"]

    assert [entry.outcome for entry in chat.entries] == [Outcome.PASS] * 4 + [Outcome.FAIL]
    assert chat.entries[-1].changed == ("promises",)
    assert "latest beside 4 before it that passed: ▼ ttft_ms_p50" in chat.trend_text
    assert groups["Game day one replica dies"].trend_text == ""


def test_the_last_runs_alone_are_looked_at_where_asked(folder: Path) -> None:
    assert sum(len(group.entries) for group in build_history(folder, last=2)) == 2


def test_another_load_is_marked_and_never_compared(tmp_path: Path) -> None:
    record_run(tmp_path, 1, CALM)
    record_run(tmp_path, 2, CALM, spec=SPEC | {"arrivals": {"kind": "poisson", "rate_per_s": 99.0}})
    [group] = build_history(tmp_path, last=9)

    assert group.entries[1].changed == ("workload: arrivals.rate_per_s (50.0, 99.0)",)
    assert group.trend is None
    assert "no earlier run of the same load" in group.trend_text


def test_a_run_whose_rows_cannot_be_read_stays_in_the_list(tmp_path: Path) -> None:
    run = record_run(tmp_path, 1, CALM)
    (run.path / "requests" / "worker-0.parquet").write_text("no parquet")
    [group] = build_history(tmp_path, last=9)

    assert group.entries[0].run.figures == {}
    assert "cannot be read" in group.entries[0].run.problems[0]


def test_a_run_that_was_cut_off_is_there_without_a_verdict(tmp_path: Path) -> None:
    create_run(tmp_path, kind="load", spec=SPEC, seed=1).close()
    [group] = build_history(tmp_path, last=9)

    assert group.entries[0].outcome is Outcome.INCONCLUSIVE
    assert "INCONCLUSIVE" in "\n".join(render_lines([group]))


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_folder_without_runs_is_a_usage_error(what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        build_history(tmp_path / "nowhere" if what == "missing" else tmp_path, last=9)


def test_the_command_prints_a_table_json_and_a_page(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "overproof", "history", str(folder)]
    done = subprocess.run(
        [*command, "--html", str(tmp_path / "h.html"), "--json"], capture_output=True, text=True, check=False
    )
    document = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert document["schema_version"] == 1
    assert [len(group["runs"]) for group in document["groups"]] == [5, 1]
    assert document["groups"][0]["trend_outcome"] == "fail"
    assert "<h2" in (tmp_path / "h.html").read_text()


@pytest.mark.needs("chromium")
def test_the_page_draws_every_metric_and_runs_nothing_of_a_targets(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    hostile = " ".join(TEXTS[:6])
    spec = SPEC | {"name": hostile}
    for seed in range(3):
        record_run(tmp_path / "runs", seed, CALM, spec=spec)
    judged(tmp_path / "runs", [finding(hostile, hostile, Outcome.FAIL, hostile)], spec={"title": hostile})
    page_file = tmp_path / "history.html"
    page_file.write_text(
        render_history(build_history(tmp_path / "runs", last=9), folder=hostile, page=page_file)
    )
    seen: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(page_file.as_uri())
        charts, hurt = page.locator(".uplot").count(), page.evaluate("window.hurt")
        is_wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        browser.close()

    assert [text for text in seen if text != page_file.as_uri()] == []
    assert charts == 6  # ttft, itl, e2e, goodput, errors, tokens per second
    assert hurt is None
    assert not is_wide


def test_the_document_holds_plain_json(folder: Path) -> None:
    text = json.dumps(history_document(build_history(folder, last=100)), allow_nan=False)

    assert json.loads(text)["groups"][0]["runs"][0]["figures"]["ttft_ms_p50"]["value"] > 0
    assert load_run(folder / "latest").header.kind == "gameday"

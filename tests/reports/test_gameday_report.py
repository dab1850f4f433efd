"""The after-report of a game day: what a post-mortem reads, whatever the day came to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.gameday_sheet import GamedaySheet, build_gameday_sheet, percent
from reports.gameday_text import gameday_lines
from reports.html import render_html
from reports.markdown import render_markdown
from reports.publish import publish
from reports.record import create_run
from reports.run import INTERRUPTED, Run, load_run
from reports.timeline import build_timeline
from tests.reports.gamedays import FAULT, HARM, PLAN, SPEC, UNDONE, record_day
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding

ACTED: JsonObject = {"did": "started replica-0 again", "has_acted": True, "by": "rollback"}


def sheet_of(run: Run) -> GamedaySheet:
    sheet = build_gameday_sheet(run, build_timeline(run))
    assert sheet is not None
    return sheet


def test_what_a_probe_observed_is_a_step_and_what_an_action_gave_back_is_none(tmp_path: Path) -> None:
    tight = {"outcome": "fail", "observed": "chat: 0 may go, 2 healthy of at least 2"}
    probe = {"type": "probe", "name": "budgets allow", "output": tight}
    dumb = {"type": "probe", "name": "is there", "output": True}
    action = {"type": "action", "name": "kill", "output": tight}
    kind = "chaos.activity.completed"
    run = record_day(tmp_path, happenings=[(18.0, kind, probe), (18.1, kind, dumb), (18.2, kind, action)])

    told = [step for step in sheet_of(run).steps if step.what.startswith("probe")]

    assert [(step.what, step.detail, step.mark) for step in told] == [
        ("probe: budgets allow", tight["observed"], "harm")
    ]


def test_each_step_has_its_time_of_day_and_its_seconds_from_the_injection(tmp_path: Path) -> None:
    by = "the site's alert Down"
    run = record_day(tmp_path, happenings=[(18.9, "t_detect", {"by": by})])
    steps = sheet_of(run).steps

    assert [(step.after_s and round(step.after_s, 2), step.what, step.detail) for step in steps] == [
        (-11.0, "traffic begins", ""),
        (-1.0, "steady state seen", "200 requests so far"),
        (-0.1, "armed", "replica.kill on replica-0: its undo is on the disk"),
        (0.0, "injected", "replica.kill on replica-0"),
        (0.01, "verified", "pid 4242 is gone"),
        (1.0, "traffic good again", ""),
        (2.5, "noticed", f"by {by}"),
        (4.5, "all replicas serve", ""),
        (4.6, "undo begins", "by rollback"),
        (4.8, "nothing left to undo", "the lab restarted it (by rollback)"),
        (24.0, "end of the game day", ""),
    ]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", step.clock) for step in steps)


def test_traffic_that_was_never_bad_is_not_said_to_be_good_again(tmp_path: Path) -> None:
    run = record_day(tmp_path, recover_s=0.0)

    assert "traffic stayed good" in [step.what for step in sheet_of(run).steps]


STOP = ((17.0, "stop.requested", {"by": "ann@desk"}),)
LEFT = (41.0, INTERRUPTED, {"signal": "SIGTERM"})


@pytest.mark.parametrize(
    ("day", "word", "is_well"),
    [
        ({}, "by itself", True),
        ({"undo": ACTED}, "by our undo", False),
        ({"undo": ACTED, "happenings": STOP, "end": LEFT}, "by our undo", True),
        ({"undo": ACTED, "ends_by": "undo"}, "by undo, as meant", True),
        ({"undo": None, "state": "injected"}, "still broken", False),
        ({"undo": None, "state": "undo_failed"}, "still broken", False),
    ],
)
def test_what_healed_by_itself_is_told_from_what_our_undo_had_to_do(
    day: dict[str, object], word: str, is_well: bool, tmp_path: Path
) -> None:
    sheet = sheet_of(record_day(tmp_path, **day))  # type: ignore[arg-type]

    assert [(row.word, row.is_well) for row in sheet.healing] == [(word, is_well)]
    assert ("gameday undo" in sheet.follow_ups[0].what if sheet.follow_ups else False) == (
        word == "still broken"
    )


def test_a_day_that_was_stopped_says_first_by_whom_and_what_is_left(tmp_path: Path) -> None:
    whole = record_day(tmp_path / "a", happenings=STOP, end=LEFT, undo=ACTED)
    broken = record_day(tmp_path / "b", happenings=STOP, end=LEFT, undo=None, state="injected")

    assert sheet_of(whole).ending == (
        "Stopped by ann@desk, 1.0 s after the injection; nothing is left broken."
    )
    assert sheet_of(broken).ending.endswith("STILL BROKEN: replica.kill on replica-0.")
    assert "STILL BROKEN" in render_markdown(broken)
    assert "STILL BROKEN" in render_html(broken)
    assert sheet_of(record_day(tmp_path / "c")).ending == ""


def test_what_a_stopped_day_lacks_is_no_work_for_anybody_but_a_failure_is(tmp_path: Path) -> None:
    lacking = finding("traffic", "endpoint:e@after", Outcome.INCONCLUSIVE, next_step="raise the rate")
    failed = finding("slo", "slo:ttft@during", Outcome.FAIL, next_step="look at the slowest requests")
    stopped = sheet_of(
        record_day(tmp_path / "a", happenings=STOP, end=LEFT, findings=[lacking, failed])
    ).follow_ups
    finished = sheet_of(record_day(tmp_path / "b", findings=[lacking, failed])).follow_ups

    assert [row.what for row in stopped] == [
        "Look at the slowest requests.",
        "Repeat this game day with the same seed once that is done.",
    ]
    assert [row.what for row in finished][:2] == ["Look at the slowest requests.", "Raise the rate."]


def test_a_good_day_asks_for_nothing_and_one_that_was_near_its_bounds_does(tmp_path: Path) -> None:
    evidence = {"t_recover_s": 14.0, "harm": HARM | {"budget_share": 0.0003}}
    near = finding("recovery", "endpoint:e", Outcome.PASS, "after 14 s", evidence=evidence)
    blind = {key: value for key, value in SPEC.items() if key not in ("alerts", "guards")}

    assert sheet_of(record_day(tmp_path / "a")).follow_ups == ()
    assert [row.because for row in sheet_of(record_day(tmp_path / "b", findings=[near])).follow_ups] == [
        "recovery", "error budget",
    ]  # fmt: skip
    assert [row.because for row in sheet_of(record_day(tmp_path / "c", spec=blind)).follow_ups] == [
        "detection", "no guard",
    ]  # fmt: skip


def test_times_requests_and_budget_stand_beside_their_bounds(tmp_path: Path) -> None:
    figures = {figure.name: figure for figure in sheet_of(record_day(tmp_path)).figures}

    assert figures["Time to detect"].value == "noticed after 2.50 s"
    assert figures["Requests lost"].value == "3 of 300 failed (3 truncated), 4 were bad by the promises"
    assert figures["Error budget burned"].value == (
        "0.00015% of 30 days' budget at 0.95: 4 bad of 2,592,000 that it allows at 20/s"
    )
    assert figures["Error budget burned"].bound == "the plan expected at most 0.02%"
    assert figures["Error budget burned"].outcome is None

    dear = HARM | {"budget_share": 0.001}
    costly = {f.name: f for f in sheet_of(record_day(tmp_path / "b", harm=dear)).figures}
    assert costly["Error budget burned"].outcome is Outcome.INCONCLUSIVE


def test_the_plan_names_hash_victim_share_permission_and_bounds(tmp_path: Path) -> None:
    permitted = (1.0, "plan.permitted", {"conditions": [{"name": "window", "observed": "at any time"}]})
    planned = dict(sheet_of(record_day(tmp_path, happenings=[permitted])).planned)

    assert planned["Plan"] == f"{PLAN['hash']}, confirmed beforehand"
    assert planned["Fault"] == (
        "replica.kill on replica-0 (pid 4242): 1 of 3 replicas, 33% of the capacity; "
        "the platform is to heal it"
    )
    assert planned["Window"] == "at any time"
    assert planned["Site's alerts"] == 'alertname="Down" within 30 s, from http://am:9093'
    assert planned["Bounds"] == "back within 15 s, at most 0.02% of the error budget"


def test_a_record_with_nothing_in_it_has_an_after_report(tmp_path: Path) -> None:
    run = load_run(create_run(tmp_path, kind="gameday", spec={}, seed=1).path)
    (run.path / "plan.json").write_text("{")

    assert "### What happened" in render_markdown(run)
    assert "Nothing was armed" in render_html(run)
    assert sheet_of(run).figures == ()


def test_a_plan_of_another_version_is_shown_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    run = record_day(
        tmp_path, plan={"hash": "cd", "targets": [{"fault": "host.reboot"}, 3], "max_share": 0.5}
    )

    assert dict(sheet_of(run).planned)["Plan"].startswith("cd,")
    assert "at most 50% at once" in render_html(run)


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_is_shown_and_does_nothing(text: str, tmp_path: Path) -> None:
    hostile: JsonObject = {"title": text, "description": text, "steady-state-hypothesis": {"title": text}}
    run = record_day(
        tmp_path,
        spec=SPEC | {"document": hostile},
        happenings=[(17.0, "stop.requested", {"by": text}), (18.0, "guard.tripped", {"guard": text})],
        undo=UNDONE | {"did": text, "by": text},
        findings=[finding("slo", text, Outcome.FAIL, text, next_step=text)],
    )
    markdown = render_markdown(run)
    table = [line for line in markdown.splitlines() if line.startswith("| ") and "stop asked for" in line]

    assert len(table) == 1
    assert table[0].replace("\\|", "").count("|") == 5
    assert "<script>window" not in render_html(run)
    assert all("\x1b" not in line and "\n" not in line for line, _ in gameday_lines(sheet_of(run), width=80))
    assert "\x1b" not in markdown


def test_at_80_columns_no_line_of_a_terminal_is_longer(tmp_path: Path) -> None:
    long = finding("slo", "slo:x", Outcome.FAIL, "y" * 300, next_step="look at every one of them " * 9)
    sheet = sheet_of(record_day(tmp_path, findings=[long], undo=ACTED | {"did": "w " * 90}))
    lines = [line for line, _ in gameday_lines(sheet, width=80)]

    assert max(map(len, lines)) <= 80
    assert any(line.endswith("…") for line in lines)
    assert any("w " * 90 in line for line, _ in gameday_lines(sheet, width=None))


def test_undoing_is_a_band_of_its_own_from_its_start_to_its_end(tmp_path: Path) -> None:
    bands = [band for band in build_timeline(record_day(tmp_path)).bands if band.kind == "undo"]
    failed = record_day(
        tmp_path / "b", undo=None, state="undo_failed",
        happenings=[(20.0, "undo.started", FAULT | {"by": "x"}), (21.0, "undo.failed", FAULT | {"by": "x"})],
    )  # fmt: skip

    assert [(band.label, round(band.start_s, 3), round(band.end_s or 0, 3)) for band in bands] == [
        ("undo: rollback", 20.6, 20.8)
    ]
    assert [b.label for b in build_timeline(failed).bands if b.kind == "undo"] == ["undo failed: x"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1e-7, "less than 0.0001%"), (1.2e-6, "0.00012%"), (0.00123, "0.12%"), (4.2, "420%")],
)
def test_a_share_of_the_budget_is_told_without_a_power_of_ten(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.needs("chromium")
def test_in_a_browser_the_after_report_fits_a_phone_and_says_nothing_on_the_console(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    lacking = finding("traffic", "endpoint:e@after", Outcome.INCONCLUSIVE, next_step="raise the `rate`")
    run = record_day(tmp_path, happenings=STOP, end=LEFT, findings=[lacking], undo=ACTED)
    publish(run)
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 360, "height": 800})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((run.path / "report.html").as_uri())
        width = page.evaluate("document.documentElement.scrollWidth")
        ending = page.locator(".ending").bounding_box()
        shown = page.locator(".story tbody th").all_inner_texts()
        browser.close()

    assert width <= 360
    assert ending is not None
    assert ending["y"] < 800
    assert "stop asked for" in shown
    assert complaints == []

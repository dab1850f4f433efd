"""summary.md: what a CI job page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.errors import RecordError
from probes.outcome import Outcome
from reports.github import append_github_summary
from reports.markdown import escape, render_markdown
from reports.publish import publish
from reports.record import create_run
from reports.run import load_run
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding, game_day, judged


def test_outcome_times_and_what_decided_come_first(tmp_path: Path) -> None:
    lines = render_markdown(game_day(tmp_path)).splitlines()

    assert lines[0] == "## ✗ FAIL · Game day"
    assert lines[2] == "It did not hold: 1 of 4 findings failed."
    assert "| 20.00 s after the start | +0.60 s | +3.00 s | +6.00 s |" in lines
    assert [line for line in lines if line.startswith("| ✗ FAIL | slo | slo:ttft")] != []


def test_a_run_with_nothing_in_it_has_a_summary(tmp_path: Path) -> None:
    text = render_markdown(load_run(create_run(tmp_path, kind="load", spec={}, seed=0).path))

    assert text.startswith("## ? INCONCLUSIVE · Load test\n\nNothing was judged")


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_text_stays_in_its_cell(text: str, tmp_path: Path) -> None:
    run = judged(tmp_path, [finding("slo", text, Outcome.FAIL, text, next_step=text)])
    rows = [line for line in render_markdown(run).splitlines() if line.startswith("| ✗")]

    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 7
    assert "<script" not in rows[0].replace("\\<", "")


def test_what_markdown_would_act_on_is_escaped() -> None:
    assert escape("a|b `c` [d](e) <f> *g*") == r"a\|b \`c\` \[d\]\(e\) \<f\> \*g\*"


def test_github_gets_the_summary_only_where_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    publish(game_day(tmp_path / "a"))
    page = tmp_path / "page.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))

    run = game_day(tmp_path / "b")
    publish(run)
    publish(load_run(run.path / "load"))  # part of the game day: it has no summary of its own on the page

    assert page.read_text() == f"before\n{(run.path / 'summary.md').read_text()}\n"


def test_a_job_page_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))

    with pytest.raises(RecordError, match=r"from \$GITHUB_STEP_SUMMARY\): cannot be written"):
        append_github_summary("text")

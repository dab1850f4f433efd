"""GitHub Actions: the job page and annotations, up to its limits and not beyond."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from probes.outcome import Outcome
from reports.github import SUMMARY_BYTES_MAX, annotate, append_github_summary, render_annotations
from reports.publish import publish
from reports.run import Run
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding, game_day, judged

LINE = "| é cell |\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def test_a_page_may_be_as_large_as_github_takes_it(page: Path) -> None:
    text = "x" * (SUMMARY_BYTES_MAX - 1)
    append_github_summary(text)

    assert page.stat().st_size == SUMMARY_BYTES_MAX
    assert page.read_text() == text + "\n"


@pytest.mark.parametrize("before", [0, 1000, SUMMARY_BYTES_MAX - 5000])
def test_one_byte_more_is_cut_after_a_whole_line_and_says_so(before: int, page: Path) -> None:
    page.write_text("b" * before)
    text = LINE * ((SUMMARY_BYTES_MAX - before) // len(LINE.encode()) + 1)
    append_github_summary(text)
    kept, mark, _ = page.read_text(encoding="utf-8")[before:].partition("\n\n(cut here")

    assert page.stat().st_size <= SUMMARY_BYTES_MAX
    assert page.stat().st_size > SUMMARY_BYTES_MAX - 200
    assert mark
    assert set((kept + "\n").splitlines(keepends=True)) <= {LINE, "\n"}


def test_a_full_page_is_left_as_it_is(page: Path) -> None:
    page.write_text("b" * (SUMMARY_BYTES_MAX - 10))
    append_github_summary("a summary")
    append_github_summary("another summary")

    assert page.stat().st_size <= SUMMARY_BYTES_MAX
    assert set(page.read_text()) <= set("b" + "a summary\n")


def failing(out: Path, failed: int, undecided: int) -> Run:
    rows = [finding("ecc", f"gpu:{n}", Outcome.FAIL, next_step="swap it") for n in range(failed)]
    rows += [finding("speed", f"gpu:{n}", Outcome.INCONCLUSIVE) for n in range(undecided)]
    return judged(out, [*rows, finding("heat", "gpu:0", Outcome.PASS), finding("x", "y", None)])


@pytest.mark.parametrize(("failed", "shown"), [(0, 0), (1, 1), (10, 10), (11, 10), (500, 10)])
def test_of_each_kind_there_are_at_most_ten_annotations_and_the_last_counts_the_rest(
    failed: int, shown: int, tmp_path: Path
) -> None:
    lines = render_annotations(failing(tmp_path, failed, failed))

    for kind in ("error", "warning"):
        of_kind = [line for line in lines if line.startswith(f"::{kind} ")]
        assert len(of_kind) == shown
        assert ("and" in of_kind[-1] if of_kind else False) == (failed > 10)
    assert f"and {failed - 9} more" in "".join(lines) or failed <= 10


def test_an_annotation_says_what_was_seen_what_was_expected_and_what_to_do(tmp_path: Path) -> None:
    lines = render_annotations(game_day(tmp_path))

    assert lines == [
        "::error title=Game day%3A slo slo%3Attft@during::88.21%25 of 34 values at most 500 ms%0A"
        "expected: at least 95.00%25 at 95%25 confidence%0Anext: look at the slowest requests of this phase"
    ]


@pytest.mark.parametrize("text", [*TEXTS, "a\n::stop-commands::x\n##[error]y"])
def test_what_a_target_says_is_one_annotation_and_no_other_command(text: str, tmp_path: Path) -> None:
    run = judged(tmp_path, [finding(text, text, Outcome.FAIL, text, next_step=text)])
    [line] = render_annotations(run)

    assert re.fullmatch(r"::error title=[^:,\r\n]*::[^\r\n]*", line)


def test_annotations_go_to_the_log_on_github_only_and_not_for_the_load_of_a_game_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    annotate(game_day(tmp_path / "a"))
    assert capsys.readouterr() == ("", "")

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    publish(game_day(tmp_path / "b"))
    said = capsys.readouterr()

    assert said.out == ""
    assert said.err.count("::error ") == 1

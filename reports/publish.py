"""Write what people and machines read beside the record: page, summary, JUnit file, result, lists."""

from __future__ import annotations

from probes.event import to_json_line
from reports.record import write_atomically
from reports.run import Run

REPORT_FILE = "report.html"
JUNIT_FILE = "junit.xml"
SUMMARY_FILE = "summary.md"
RESULT_FILE = "result.json"
FILES = (REPORT_FILE, JUNIT_FILE, SUMMARY_FILE, RESULT_FILE)  # of every run; a fleet has lists besides


def publish(run: Run) -> None:
    """Render every form of the report into the run's folder; each file is whole or the one before.

    Raises:
        OSError: the folder cannot be written.
    """
    from reports.github import annotate, append_github_summary
    from reports.html import render_sheet
    from reports.junit import render_junit
    from reports.markdown import summarize
    from reports.result import result_document
    from reports.sheet import build_sheet

    write_atomically(run.path / JUNIT_FILE, render_junit(run))
    write_atomically(run.path / RESULT_FILE, to_json_line(result_document(run)))
    sheet = build_sheet(run)
    summary = summarize(sheet)
    write_atomically(run.path / SUMMARY_FILE, summary)
    write_atomically(run.path / REPORT_FILE, render_sheet(sheet))
    if (
        sheet.fleet is not None and not sheet.fleet.problems
    ):  # lists that were whole stay rather than lack hosts
        from reports.fleet_files import write_fleet_files

        write_fleet_files(run)
    if not (run.path.parent / "run.json").exists():  # a load test inside a game day is part of its summary
        append_github_summary(summary)
        annotate(run)

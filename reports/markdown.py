"""``summary.md``: what a pull request or a CI job page shows of a run."""

from __future__ import annotations

import re

from probes.finding import Finding
from reports.endpoint_rows import HEAD
from reports.gameday_text import gameday_markdown
from reports.run import Run
from reports.sheet import Sheet, build_sheet
from reports.text import one_line
from reports.verdict import SIGNS

DECIDING_MAX = 20
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~@$&])")


def render_markdown(run: Run) -> str:
    """Return the summary of a run."""
    return summarize(build_sheet(run))


def summarize(sheet: Sheet) -> str:
    """Return outcome, times, what decided and where the whole report is, as Markdown."""
    verdict = sheet.verdict
    parts = [
        f"## {SIGNS[verdict.outcome]} {verdict.outcome} · {escape(sheet.title)}",
        verdict.sentence,
        " · ".join(f"{name}: {escape(value)}" for name, value in sheet.facts),
    ]
    if sheet.moments:
        parts.append(_moments(sheet))
    if sheet.endpoints:
        parts.append(_endpoints(sheet))
    if verdict.failed or verdict.undecided:
        parts.append(_table([*verdict.failed, *verdict.undecided]))
    if sheet.gameday is not None:
        parts += gameday_markdown(sheet.gameday, escape=escape, command=sheet.command)
    left_out = len(verdict.not_applicable) + len(verdict.waived)
    parts.append(
        f"{len(verdict.failed)} failed, {len(verdict.undecided)} undecided, {len(verdict.passed)} passed, "
        f"{left_out} not applicable or waived. Record: `{_code(sheet.run.header.id)}`, "
        "see `report.html` in its folder."
    )
    return "\n\n".join(parts) + "\n"


def _moments(sheet: Sheet) -> str:
    head = " | ".join(moment.label for moment in sheet.moments)
    cells = (
        f"{m.t_s:.2f} s after the start" if m.after_s is None else f"{m.after_s:+.2f} s"
        for m in sheet.moments
    )
    return f"| {head} |\n|{'---|' * len(sheet.moments)}\n| {' | '.join(cells)} |"


def _endpoints(sheet: Sheet) -> str:
    rows = (f"| {' | '.join(map(escape, row.cells()))} |" for row in sheet.endpoints)
    return "\n".join((f"| {' | '.join(HEAD)} |", "|---|---|" + "---:|" * (len(HEAD) - 2), *rows))


def _table(findings: list[Finding]) -> str:
    rows = ["| outcome | rule | subject | observed | expected | next step |", "|---|---|---|---|---|---|"]
    for finding in findings[:DECIDING_MAX]:
        texts = (finding.rule, finding.subject, finding.observed, finding.expected, finding.next_step)
        rows.append(f"| {SIGNS[finding.outcome]} {finding.outcome} | {' | '.join(map(escape, texts))} |")
    if len(findings) > DECIDING_MAX:
        rows.append(f"| | and {len(findings) - DECIDING_MAX} more | | | | |")
    return "\n".join(rows)


def escape(text: str) -> str:
    """Return text from a target so that Markdown shows it and does nothing else with it."""
    return _SPECIAL.sub(r"\\\1", one_line(text))


def _code(text: str) -> str:
    return one_line(text).replace("`", "'")

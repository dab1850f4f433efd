"""The result of a run on standard output: the verdict, what decided it, and where the report is."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from probes.event import to_json_line
from probes.finding import Finding
from probes.outcome import Outcome
from reports.endpoint_rows import HEAD
from reports.publish import REPORT_FILE
from reports.result import result_document
from reports.run import Run
from reports.text import one_line
from reports.verdict import KIND_TITLES, SIGNS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from reports.sheet import Sheet

_COLOURS: dict[Outcome | None, str] = {
    Outcome.PASS: "green",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.FAIL: "red",
    None: "dim",
}
DECIDING_MAX = 10
REST_MAX = 40
SUSPECTS_FULL_MAX, SUSPECTS_BRIEF_MAX = 4, 16  # of a fleet


def print_result(run: Run, *, as_json: bool) -> None:
    """Print the verdict and the findings; the run's path is the last line, or inside the JSON."""
    if as_json:
        sys.stdout.write(to_json_line(result_document(run)))
        return
    console = _console()
    for line in _result(run, is_tty=console.is_terminal):
        console.print(line)
    sys.stdout.write(f"{run.path}\n")


def print_results(runs: Sequence[Run], *, as_json: bool) -> None:
    """Print the outcomes of several runs and where their reports are, one line each."""
    if as_json:
        sys.stdout.write(to_json_line({"runs": [result_document(run) for run in runs]}))
        return
    from rich.text import Text

    console = _console()
    console.print()
    for run in runs:
        title = KIND_TITLES.get(run.header.kind, one_line(run.header.kind))
        line = Text.assemble(
            _outcome(run.outcome, pad=True), f"  {title:<10}  ", (str(run.path / REPORT_FILE))
        )
        console.print(line, no_wrap=True, crop=False, overflow="ignore")


def _console() -> Console:
    from rich.console import Console

    is_tty = sys.stdout.isatty()
    # Where nobody looks at columns, nothing is cut and nothing wrapped.
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=not is_tty)


def _result(run: Run, *, is_tty: bool) -> Iterator[Text]:
    """Yield the lines of a result, the verdict first."""
    from rich.text import Text

    from reports.sheet import build_sheet

    sheet = build_sheet(run, is_drawn=False)
    verdict = sheet.verdict
    facts = dict(sheet.facts)
    target = facts.pop("Device", "") or facts.pop("Endpoint", "") or facts.pop("Endpoints", "")
    first = f"  {sheet.title}" + (f" of {target}" if target else "") + f" on {one_line(facts.pop('Host'))}"
    yield Text.assemble(_outcome(verdict.outcome), (first, "bold"))
    yield Text(verdict.sentence)
    yield Text(", ".join(f"{name.lower()} {one_line(value)}" for name, value in facts.items()), style="dim")
    if sheet.gameday is not None and sheet.gameday.ending:
        yield Text(one_line(sheet.gameday.ending), style="bold")
    if sheet.gameday is not None and sheet.gameday.hypothesis:
        yield Text(f"hypothesis: {one_line(sheet.gameday.hypothesis)}")
    yield from _moments(sheet)
    yield from _endpoints(sheet)
    if sheet.fleet is not None:
        counts = (f"{count:,} {name}" for name, count in sheet.fleet.counts.items())
        yield Text(", ".join(counts) + (" (simulated)" if sheet.fleet.is_simulated else ""))
    decided = [f for f in (*verdict.failed, *verdict.undecided) if "because" not in f.evidence]
    full = DECIDING_MAX if sheet.fleet is None else SUSPECTS_FULL_MAX
    for finding in decided[:full]:
        yield Text()
        yield from _deciding(finding, is_tty=is_tty)
    brief = decided[full : full + SUSPECTS_BRIEF_MAX] if sheet.fleet is not None else []
    yield from _suspects(brief, is_tty=is_tty)
    if len(decided) > full + len(brief):
        yield Text(f"and {len(decided) - full - len(brief)} more in the report")
    yield from _rest(sheet, is_tty=is_tty)
    if sheet.gameday is not None:
        from reports.gameday_text import gameday_lines

        width = shutil.get_terminal_size().columns if is_tty else None
        yield from (Text(line, style=style) for line, style in gameday_lines(sheet.gameday, width=width))
    for problem in sheet.timeline.problems:
        yield Text(f"not shown: {one_line(problem)}", style="yellow")
    yield Text()
    yield Text.assemble(("report  ", "dim"), str(run.path / REPORT_FILE))
    if sheet.fleet is not None:
        yield Text.assemble(("lists   ", "dim"), ", ".join(sheet.fleet.files), " beside it")


def _endpoints(sheet: Sheet) -> Iterator[Text]:
    """Yield a line for each endpoint of several, in columns."""
    from rich.text import Text

    if not sheet.endpoints:
        return
    rows = [HEAD, *(row.cells() for row in sheet.endpoints)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    yield Text()
    for number, row in enumerate(rows):
        cells = [
            f"{text:<{width}}" if column < 2 else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield Text("  ".join(cells), style="" if number else "dim")


def _outcome(outcome: Outcome, *, pad: bool = False) -> tuple[str, str]:
    text = f"{SIGNS[outcome]} {outcome}"
    return (f"{text:<14}" if pad else text), f"bold {_COLOURS[outcome]}"


def _moments(sheet: Sheet) -> Iterator[Text]:
    from rich.text import Text

    if not sheet.moments:
        return
    parts = (
        f"{m.label} at {m.t_s:.2f} s" if m.after_s is None else f"{m.label} {m.after_s:+.2f} s"
        for m in sheet.moments
    )
    yield Text()
    yield Text(" → ".join(parts), style="bold")


def _deciding(finding: Finding, *, is_tty: bool) -> Iterator[Text]:
    """Yield what was observed and expected, and what to do; on a terminal wrapped below its own beginning."""
    from rich.text import Text

    def row(name: str, text: str, style: str = "") -> Text:
        line = f"  {name:<8}  {one_line(text, 600)}"
        if is_tty:
            columns = max(40, shutil.get_terminal_size().columns)
            line = textwrap.fill(line, columns, subsequent_indent=" " * 12, break_on_hyphens=False)
        return Text(line, style=style)

    colour = _COLOURS[finding.outcome]
    yield Text.assemble(
        (f"{SIGNS[finding.outcome]} {finding.outcome} ", f"bold {colour}"),
        (f"{one_line(finding.rule)} ", "bold"),
        (one_line(finding.subject), "dim"),
    )
    yield row("observed", finding.observed)
    yield row("expected", finding.expected)
    if finding.evidence.get("explains"):
        yield row("explains", ", ".join(map(str, finding.evidence["explains"])))
    if finding.next_step:
        yield row("next", finding.next_step, "bold")


def _suspects(findings: Sequence[Finding], *, is_tty: bool) -> Iterator[Text]:
    """Yield the suspects after the first ones, a line each: many parts of a fleet may be bad at once."""
    from rich.text import Text

    if findings:
        yield Text()
    for finding in findings:
        line = Text.assemble(
            (f"{SIGNS[finding.outcome]} {finding.outcome} ", f"bold {_COLOURS[finding.outcome]}"),
            (f"{one_line(finding.rule)} {one_line(finding.subject)} ", "bold"),
            one_line(finding.observed, 600),
        )
        if is_tty:
            line.truncate(shutil.get_terminal_size().columns, overflow="ellipsis")
        yield line


def _rest(sheet: Sheet, *, is_tty: bool) -> Iterator[Text]:
    """Yield what did not decide: on a terminal a line for each rule, cut to its width, else all in full."""
    from rich.text import Text

    verdict = sheet.verdict
    rest = [*verdict.passed, *verdict.waived, *verdict.not_applicable]
    rows = [_row(found) for found in _grouped(rest)] if is_tty else [_full_row(finding) for finding in rest]
    if rows:
        yield Text()
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    for row in rows[:REST_MAX]:
        colour = "green" if row[0] == f"{SIGNS[Outcome.PASS]} pass" else "dim"
        padded = [f"{text:<{width}}  " for text, width in zip(row[:3], widths, strict=True)]
        line = Text.assemble((padded[0], colour), padded[1], (padded[2], "dim"), row[3])
        if is_tty:
            line.truncate(shutil.get_terminal_size().columns, overflow="ellipsis")
        yield line
    if len(rows) > REST_MAX:
        yield Text(f"and {len(rows) - REST_MAX} more in the report", style="dim")


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings of one rule that count the same together, in the order of their first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.rule, _word(finding)), []).append(finding)
    return list(groups.values())


def _word(finding: Finding) -> str:
    word = "waived" if finding.waiver is not None else "n/a" if finding.outcome is None else "pass"
    return f"{SIGNS[finding.outcome]} {word}"


def _row(found: Sequence[Finding]) -> tuple[str, str, str, str]:
    count = f"×{len(found)}" if len(found) > 1 else ""
    return _word(found[0]), one_line(found[0].rule), count, one_line(found[0].observed, 600)


def _full_row(finding: Finding) -> tuple[str, str, str, str]:
    return _word(finding), one_line(finding.rule), one_line(finding.subject), one_line(finding.observed, 600)

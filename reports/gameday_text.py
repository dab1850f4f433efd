"""The after-report of a game day as Markdown for ``summary.md``, and as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence

from reports.gameday_sheet import FollowUp, GamedaySheet
from reports.gameday_story import Step, seconds_text
from reports.text import one_line
from reports.verdict import SIGNS

STEPS_MAX = 40  # in Markdown
TERMINAL_STEPS_MAX = 24
_NAME_COLUMNS = 24

Escape = Callable[[str], str]


def gameday_markdown(day: GamedaySheet, *, escape: Escape, command: str) -> Iterator[str]:
    """Yield the parts of the summary, each a paragraph, a list or a table."""
    if day.ending:
        yield f"**{escape(day.ending)}**"
    told = f" {escape(day.description)}" if day.description else ""
    yield f"**Hypothesis:** {escape(day.hypothesis) or 'not on record'}.{told}"
    yield f"### What happened ({escape(day.day)})"
    rows = [(s.clock, seconds_text(s), s.what, s.detail) for s in day.steps[:STEPS_MAX]]
    yield _table(("time", "s from the injection", "what", "detail"), rows, escape)
    yield "### What healed by itself, and what did not"
    healed = [(row.subject, f"{'✓' if row.is_well else '✗'} {row.word}", row.text) for row in day.healing]
    if healed:
        yield _table(("fault", "put back", "how"), healed, escape)
    else:
        yield "Nothing was armed, so nothing had to heal."
    if day.figures:
        yield "### Times and cost, against their bounds"
        figures = [(f.name, f"{_sign(f.outcome)}{f.value}", f.bound or "–") for f in day.figures]
        yield _table(("figure", "this day", "bound"), figures, escape)
    yield "### Follow-ups"
    yield "\n".join(_task(row, escape) for row in day.follow_ups) or "None: everything that was asked held."
    yield "### What was planned"
    yield "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in day.planned)
    yield f"Again: `{one_line(command).replace('`', chr(39))}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], escape: Escape) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(escape, row))} |" for row in rows)])


def _task(row: FollowUp, escape: Escape) -> str:
    parts = row.what.split("`")
    what = "".join(f"`{one_line(part)}`" if i % 2 else _spaced(part, escape) for i, part in enumerate(parts))
    return f"- [ ] {what} ({escape(row.because)}) Owner: \\_\\_\\_\\_ By: \\_\\_\\_\\_"


def _spaced(part: str, escape: Escape) -> str:
    """Escape a part of a sentence, which drops the spaces at its ends, and keep those."""
    inner = escape(part)
    return f"{' ' * part.startswith(' ')}{inner}{' ' * part.endswith(' ')}" if inner else part


def _sign(outcome: object) -> str:
    return "" if outcome is None else f"{SIGNS[outcome]} "  # type: ignore[index]


def gameday_lines(day: GamedaySheet, *, width: int | None) -> Iterator[tuple[str, str]]:
    """Yield lines and their style; ``width`` None: nobody looks at columns, nothing is cut or wrapped."""
    yield "", ""
    yield f"What happened ({day.day})", "bold"
    for step in day.steps[:TERMINAL_STEPS_MAX]:
        yield _cut(_step_line(step), width), ""
    if len(day.steps) > TERMINAL_STEPS_MAX:
        yield f"and {len(day.steps) - TERMINAL_STEPS_MAX} more in the report", "dim"
    if day.healing:
        yield "", ""
        yield "What healed by itself, and what did not", "bold"
    for row in day.healing:
        sign = "✓" if row.is_well else "✗"
        yield from _hanging(f"{sign} ", f"{row.subject}: {row.word}; {row.text}", width)
    if day.figures:
        yield "", ""
        yield "Times and cost, against their bounds", "bold"
    for figure in day.figures:
        bound = f" ({figure.bound})" if figure.bound else ""
        yield from _hanging(_sign(figure.outcome) or "  ", f"{figure.name}: {figure.value}{bound}", width)
    if day.follow_ups:
        yield "", ""
        yield "Follow-ups", "bold"
    for task in day.follow_ups:
        yield from _hanging("□ ", task.what, width)


def _step_line(step: Step) -> str:
    detail = f"  {one_line(step.detail, 300)}" if step.detail else ""
    return f"{step.clock} {seconds_text(step):>9}  {one_line(step.what):<{_NAME_COLUMNS}}{detail}".rstrip()


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def _hanging(mark: str, text: str, width: int | None) -> Iterator[tuple[str, str]]:
    text = one_line(text, 600)
    if width is None:
        yield mark + text, ""
        return
    for i, line in enumerate(textwrap.wrap(text, max(20, width - len(mark)), break_on_hyphens=False)):
        yield (mark if i == 0 else " " * len(mark)) + line, ""

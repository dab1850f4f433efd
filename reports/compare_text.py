"""A comparison as people and programs read it: a table for the terminal, Markdown for a job page, JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict

from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.compare import Change, Comparison, Direction
from reports.figure_kind import KINDS
from reports.markdown import escape
from reports.text import one_line

SCHEMA_VERSION = 1
SIGNS = {Direction.BETTER: "▲", Direction.WORSE: "▼", Direction.SAME: "=", Direction.UNCLEAR: "?"}
_SENTENCES = {
    Outcome.FAIL: "worse than before",
    Outcome.INCONCLUSIVE: "it is not clear whether anything changed",
    Outcome.PASS: "nothing is worse than before",
}


def render_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the terminal's table, at most 80 columns wide where names are short."""
    yield one_line(f"{comparison.run.id} beside {_base_name(comparison)}: {sentence(comparison)}")
    for text in comparison.obstacles:
        yield one_line(f"  not comparable: {text}", 600)
    yield ""
    yield f"{'figure':<14} {'before':>10} {'now':>10} {'change':>9}  {'95 % interval':>18}  verdict"
    for change in comparison.changes:
        yield (
            f"{change.name:<14} {value(change, change.base):>10} {value(change, change.run):>10} "
            f"{amount(change, change.change):>9}  {interval(change):>18}  "
            f"{SIGNS[change.direction]} {change.direction}"
        )
    yield ""
    for text in remarks(comparison):
        yield one_line(f"- {text}", 600)


def render_markdown_table(comparison: Comparison) -> str:
    """Return the comparison for a pull request or a job page."""
    rows = [
        f"## {SIGNS[_overall(comparison)]} {escape(comparison.run.id)}: {sentence(comparison)}",
        "",
        "| | figure | before | now | change | 95 % interval | margin |",
        "|---|---|---|---|---|---|---|",
    ]
    for change in comparison.changes:
        cells = (
            f"{SIGNS[change.direction]} {change.direction}",
            f"`{change.name}`",
            value(change, change.base),
            value(change, change.run),
            amount(change, change.change),
            interval(change),
            f"±{amount(change, change.margin).lstrip('+')}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    told = [*(f"not comparable: {text}" for text in comparison.obstacles), *remarks(comparison)]
    return "\n".join([*rows, "", *(f"- {escape(one_line(text, 600))}" for text in told)]) + "\n"


def comparison_document(comparison: Comparison) -> JsonObject:
    """Return what ``--json`` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "outcome": comparison.outcome.value,
        "base": [run.id for run in comparison.base],
        "run": comparison.run.id,
        "changes": [
            asdict(change) | {"direction": change.direction.value, "unit": KINDS[change.name].unit}
            for change in comparison.changes
        ],
        "missing": list(comparison.missing),
        "obstacles": list(comparison.obstacles),
        "notes": list(comparison.notes),
    }


def sentence(comparison: Comparison) -> str:
    """Return the whole in a few words."""
    if comparison.obstacles:
        return "nothing can be decided, the runs cannot be trusted"
    worse = [change.name for change in comparison.changes if change.direction is Direction.WORSE]
    return (f"{', '.join(worse)} " if worse else "") + _SENTENCES[comparison.outcome]


def _overall(comparison: Comparison) -> Direction:
    found = [change.direction for change in comparison.changes]
    if Direction.WORSE in found:
        return Direction.WORSE
    if Direction.UNCLEAR in found or not found:
        return Direction.UNCLEAR
    return Direction.BETTER if Direction.BETTER in found else Direction.SAME


def _base_name(comparison: Comparison) -> str:
    base = comparison.base
    return base[0].id if len(base) == 1 else f"{len(base)} runs from {base[0].id} to {base[-1].id}"


def remarks(comparison: Comparison) -> Iterator[str]:
    """Yield what a reader has to know: what differs, and why figures are unclear or missing."""
    yield from comparison.notes
    unclear: dict[str, list[str]] = {}
    for change in comparison.changes:
        if change.why and not comparison.obstacles:
            unclear.setdefault(change.why, []).append(change.name)
    for why, names in unclear.items():
        yield f"{', '.join(names)}: {why}"
    if comparison.missing:
        yield f"not compared, for want of values on one side: {', '.join(comparison.missing)}"


def value(change: Change, figure: float) -> str:
    """Return a figure with its unit's usual digits."""
    return f"{figure:.2%}" if KINDS[change.name].is_share else f"{figure:.4g}"


def amount(change: Change, figure: float) -> str:
    """Return a change: per cent of a ratio, points of a share."""
    if KINDS[change.name].is_share:
        return f"{figure * 100:+.2f} pt"
    return f"{figure * 100:+.1f} %" if abs(figure) < 10 else f"×{1 + figure:.3g}"


def interval(change: Change) -> str:
    """Return both ends of a change's interval."""
    return f"{amount(change, change.low)} … {amount(change, change.high)}"


def github_summary(comparison: Comparison) -> None:
    """Append the table to the job page where GitHub Actions asks for one."""
    from reports.github import GITHUB_SUMMARY, append_github_summary

    if os.environ.get(GITHUB_SUMMARY):
        append_github_summary(render_markdown_table(comparison))

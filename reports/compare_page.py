"""A comparison as one HTML page: what became of each figure, drawn beside what counts as no change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from probes.outcome import Outcome
from reports.compare import Change, Comparison, Direction
from reports.compare_text import SIGNS, amount, interval, remarks, sentence, value
from reports.figure_kind import KINDS
from reports.html import report_link
from reports.page import render_page

_WIDE, _HIGH = 220, 22
_LIMIT_MAX = 1.0  # a change that doubles a figure; what reaches further ends in an arrow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One figure as the page shows it."""

    change: Change
    sign: str
    unit: str
    before: str
    now: str
    amount: str
    interval: str
    margin: str
    plot: Markup


def render_comparison(comparison: Comparison, *, page: Path, runs: Mapping[str, Path]) -> str:
    """Return the whole page, which will lie at ``page``; ``runs`` has their folders by id."""
    limits = {is_share: _limit(comparison.changes, is_share=is_share) for is_share in (True, False)}
    every = (comparison.run, *comparison.base)
    return render_page(
        "compare.html.j2",
        c=comparison,
        told=_begun(sentence(comparison)),
        rows=[_row(change, limits[KINDS[change.name].is_share]) for change in comparison.changes],
        remarks=list(remarks(comparison)),
        links={run_id: report_link(folder, page=page) for run_id, folder in runs.items()},
        outcomes={run.id: Outcome(run.outcome) for run in every},
    )


def _begun(text: str) -> str:
    """Begin a sentence with a capital, unless with the name of a figure."""
    return text if text.split(maxsplit=1)[0].rstrip(",") in KINDS else text[:1].upper() + text[1:]


def _limit(changes: Sequence[Change], *, is_share: bool) -> float:
    """Return how far the scale reaches that all figures of one unit share."""
    alike = [change for change in changes if KINDS[change.name].is_share == is_share]
    ends = [abs(end) for change in alike for end in (change.low, change.high)]
    margins = [change.margin for change in alike]
    return max(2 * max(margins, default=0.01), min(max(ends, default=0.0), _LIMIT_MAX))


def _row(change: Change, limit: float) -> _Row:
    return _Row(
        change=change,
        sign=SIGNS[change.direction],
        unit="" if KINDS[change.name].is_share else KINDS[change.name].unit,
        before=value(change, change.base),
        now=value(change, change.run),
        amount=amount(change, change.change),
        interval=interval(change),
        margin=amount(change, change.margin).lstrip("+"),
        plot=_plot(change, limit),
    )


def _plot(change: Change, limit: float) -> Markup:
    """Return the interval of a change over the band that is no change."""

    def at(change_by: float) -> float:
        return round(_WIDE / 2 * (1 + max(-1.0, min(1.0, change_by / limit)) * 0.96), 1)

    y = _HIGH / 2
    low, high = at(change.low), at(change.high)
    band = Markup('<rect class="band" x="{}" y="1" width="{}" height="{}"/>').format(
        at(-change.margin), round(at(change.margin) - at(-change.margin), 1), _HIGH - 2
    )
    zero = Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(at(0), _HIGH)
    bar = Markup('<line class="bar" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(low, high, y, y)
    ends = [_end(low, -1, is_beyond=change.low < -limit), _end(high, 1, is_beyond=change.high > limit)]
    mark = _mark(change.direction, at(change.change), y)
    said = f"{change.name}: {amount(change, change.change)}, between {interval(change)}"
    return Markup('<svg class="change" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        said, _WIDE, _HIGH, Markup("").join([band, zero, bar, *ends, mark])
    )


def _end(x: float, side: int, *, is_beyond: bool) -> Markup:
    y = _HIGH / 2
    if is_beyond:
        return Markup('<path class="arrow" d="M{} {}l{} -5v10z"/>').format(x + 3 * side, y, -6 * side)
    return Markup('<line class="bar" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x, y - 4, y + 4)


def _mark(direction: Direction, x: float, y: float) -> Markup:
    """Return the point itself: full where something is sure, hollow where it is not."""
    is_sure = direction is not Direction.UNCLEAR
    return Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format("sure" if is_sure else "unsure", x, y)

"""Latency and goodput over the rate of arrivals: a drawing of a search's steps, without any script."""

from __future__ import annotations

from html import escape

from markupsafe import Markup

from probes.errors import RecordError
from probes.json_types import JsonObject
from reports.run import Run
from reports.table import read_series, series_names

SERIES = "rates"  # one row for each step of a search
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 180, 64, 28
_LINES = (
    ("good_per_s", "goodput, requests/s"),
    ("ttft_ms_p95", "time to first token, p95, ms"),
    ("e2e_ms_p95", "whole answer, p95, ms"),
)


def rate_plots(run: Run) -> list[Markup]:
    """Return a drawing of each figure; none for a run that is no search."""
    if SERIES not in series_names(run):
        return []
    try:
        rows = sorted(read_series(run, SERIES), key=lambda row: float(row["rate_per_s"]))
    except RecordError:  # the timeline says so
        return []
    return [_draw(rows, column, title) for column, title in _LINES]


def _draw(rows: list[JsonObject], column: str, title: str) -> Markup:
    known = [row for row in rows if row.get(column) is not None]
    right = max((float(row["rate_per_s"]) for row in known), default=1.0)
    top = max((float(row[column]) for row in known), default=1.0) or 1.0
    points = [
        (
            _LEFT + (_WIDTH - _LEFT - 8) * float(row["rate_per_s"]) / right,
            8 + (_HEIGHT - _BOTTOM - 8) * (1 - float(row[column]) / top),
            row,
        )
        for row in known
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{"currentColor" if _held(row) else "none"}" '
        f'stroke="currentColor"><title>{float(row["rate_per_s"]):.2f}/s: {float(row[column]):.1f}, '
        f"{escape(str(row['outcome']))}</title></circle>"
        for x, y, row in points
    )
    base = _HEIGHT - _BOTTOM
    ticks = "".join(
        f'<text x="{_LEFT + (_WIDTH - _LEFT - 8) * share:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{right * share:.3g}</text>"
        for share in (0, 0.25, 0.5, 0.75)
    )
    return Markup(  # noqa: S704  (numbers and escaped text)
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'width="{_WIDTH}" font-size="11" fill="currentColor"><title>{escape(title)} over requests/s</title>'
        f'<path d="M{_LEFT},8V{base}H{_WIDTH - 8}" fill="none" stroke="currentColor" opacity="0.4"/>'
        f'<polyline points="{line}" fill="none" stroke="currentColor" opacity="0.6"/>{marks}'
        f'<text x="{_LEFT - 6}" y="14" text-anchor="end">{top:.4g}</text>'
        f'<text x="{_LEFT - 6}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 8}" text-anchor="end">{right:.4g} requests/s</text>'
        f"{ticks}</svg></figure>"
    )


def _held(row: JsonObject) -> bool:
    return row.get("outcome") == "pass"

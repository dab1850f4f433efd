"""The history as one HTML page that opens anywhere and asks nobody: figures over runs, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.figure_kind import KINDS
from reports.history import Group
from reports.page import render_page
from reports.text import plain


def render_history(groups: Sequence[Group], *, folder: str, page: Path) -> str:
    """Return the whole page, which will lie at ``page``."""
    entries = sorted((e for group in groups for e in group.entries), key=lambda e: e.run.started_ns)
    return render_page(
        "history.html.j2",
        script="templates/history.js",
        charts={"groups": [_charts(group) for group in groups]},
        groups=groups,
        folder=folder,
        page=page,
        first=entries[0].started,
        last=entries[-1].started,
        counts={outcome: sum(e.outcome is outcome for e in entries) for outcome in Outcome},
        shown=shown_figures,
        kinds=KINDS,
    )


def shown_figures(group: Group) -> list[str]:
    """Return the figures that any run of a group has, in their usual order."""
    return [name for name in KINDS if any(name in entry.run.figures for entry in group.entries)]


def _charts(group: Group) -> JsonObject:
    """Return what the charts of a group draw: a line for the percentiles of a metric, one for each share."""
    panels: dict[str, list[str]] = {}
    for name in shown_figures(group):
        panels.setdefault(name.partition("_p")[0] if KINDS[name].unit == "ms" else name, []).append(name)
    return {
        "x": [plain(entry.started) for entry in group.entries],
        "outcomes": [entry.run.outcome for entry in group.entries],
        "changes": [index for index, entry in enumerate(group.entries) if entry.changed],
        "panels": [
            {
                "title": f"{title}, {KINDS[names[0]].unit}",
                "least": 0.01 if KINDS[names[0]].is_share else 1e-9,  # of the scale: all zero is a line at 0
                "series": [
                    {
                        "label": name.rpartition("_")[2] if len(names) > 1 else name,
                        "v": [
                            entry.run.figures[name].value if name in entry.run.figures else None
                            for entry in group.entries
                        ],
                    }
                    for name in names
                ],
            }
            for title, names in panels.items()
        ],
    }

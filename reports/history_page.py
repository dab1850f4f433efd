"""The history as one HTML page that opens anywhere and asks nobody: figures over runs, and what changed."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from probes.json_types import JsonObject
from reports.figure_kind import KINDS
from reports.history import Group
from reports.html import content_policy, embed_json, report_environment, template_text
from reports.text import plain
from reports.verdict import SIGNS


def render_history(groups: Sequence[Group], *, folder: str) -> str:
    """Return the whole page."""
    scripts = (template_text("vendor/uplot/uPlot.iife.min.js"), template_text("templates/history.js"))
    style = template_text("vendor/uplot/uPlot.min.css") + template_text("templates/report.css")
    return (
        report_environment()
        .get_template("history.html.j2")
        .render(
            groups=groups,
            folder=folder,
            shown=shown_figures,
            signs=SIGNS,
            kinds=KINDS,
            charts=embed_json({"groups": [_charts(group) for group in groups]}),
            scripts=[Markup(script) for script in scripts],  # noqa: S704  (our own files)
            style=Markup(style),  # noqa: S704
            policy=content_policy(scripts, style),
        )
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

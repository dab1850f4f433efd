"""A page beside the reports of runs, in their style: one file that opens anywhere and asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from probes.errors import ConfigError
from probes.json_types import JsonObject
from reports.html import content_policy, embed_json, report_environment, template_text
from reports.record import write_atomically

_STYLES = ("templates/report.css", "templates/pages.css")
_CHARTS = "vendor/uplot/uPlot"


def render_page(
    template: str,
    *,
    styles: Sequence[str] = _STYLES,
    script: str = "",
    charts: JsonObject | None = None,
    **values: object,
) -> str:
    """Fill a template; ``script`` draws ``charts``, and a page without it runs none."""
    scripts = (template_text(f"{_CHARTS}.iife.min.js"), template_text(script)) if script else ()
    style = "".join(map(template_text, (f"{_CHARTS}.min.css", *styles) if script else styles))
    return (
        report_environment()
        .get_template(template)
        .render(
            **values,
            charts=embed_json(charts or {}),
            scripts=[Markup(text) for text in scripts],  # noqa: S704  (our own files)
            style=Markup(style),  # noqa: S704
            policy=content_policy(scripts, style),
        )
    )


def write_page(path: Path, text: str) -> None:
    """Write a page whole.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written: {error.strerror}") from error

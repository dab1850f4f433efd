"""``report.html``: one file that opens anywhere, makes no request, and runs no script but its own.

Whatever came from a target is escaped by the template, stripped of control characters, and inert in the
JSON that the charts read; a content policy names the report's scripts and styles by digest and allows
nothing else.
The charts are drawn by uPlot, inlined: 51 kB, made for linked time series, where Plotly's smallest bundle is
1.2 MB.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from probes.finding import Finding
from probes.json_types import JsonObject
from reports.endpoint_rows import HEAD
from reports.fleet_heat import STEPS_TEXT
from reports.panel import Panel, describe
from reports.run import Run
from reports.sheet import Sheet, build_sheet, spec_text
from reports.text import one_line, plain
from reports.timeline import Timeline
from reports.verdict import SIGNS, format_duration

_HERE = Path(__file__).parent
_DIGITS = 6  # significant digits of a drawn value; more would only make the file larger


def render_html(run: Run) -> str:
    """Return the whole report as one HTML document."""
    return render_sheet(build_sheet(run))


def render_sheet(sheet: Sheet) -> str:
    """Fill the template with what a report says."""
    scripts = (
        template_text("vendor/uplot/uPlot.iife.min.js"),
        template_text("templates/timeline.js"),
        template_text("templates/report.js"),
    )
    style = template_text("vendor/uplot/uPlot.min.css") + template_text("templates/report.css")
    return (
        report_environment()
        .get_template("report.html.j2")
        .render(
            sheet=sheet,
            heat_steps=STEPS_TEXT,
            endpoint_head=HEAD,
            charts=embed_json(chart_data(sheet.timeline)),
            scripts=[Markup(script) for script in scripts],  # noqa: S704  (our own files)
            style=Markup(style),  # noqa: S704
            policy=content_policy(scripts, style),
        )
    )


@functools.cache
def report_environment() -> jinja2.Environment:
    """Return the templates, escaping whatever came from outside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["duration"] = format_duration
    environment.filters["sign"] = lambda finding: SIGNS[finding.outcome]
    environment.filters["outcome_word"] = outcome_word
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str)
    environment.filters["describe"] = describe
    environment.filters["coded"] = coded
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["report_of"] = lambda found, page: report_link(found.path, page=page)
    environment.filters["spec_text"] = spec_text
    environment.filters["tojson_short"] = lambda value: one_line(json.dumps(value, default=str), 300)
    return environment


def coded(text: str) -> Markup:
    """Return text whose commands, which stand between backticks, are set as such."""
    parts = plain(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def _finalize(value: object) -> object:
    """Strip control characters from whatever the template puts out; only our own markup passes untouched."""
    return value if isinstance(value, Markup) else plain(str(value))


def outcome_word(finding: Finding) -> str:
    """Return the word for how a finding counts, which is also the name of its filter."""
    if finding.waiver is not None:
        return "waived"
    return finding.outcome.value if finding.outcome is not None else "not applicable"


def report_link(run: Path, *, page: Path) -> str:
    """Return the address of a run's report from a page elsewhere; empty: there is none to follow.

    It is relative, so that runs and page may move together.
    """
    report = run.resolve() / "report.html"
    return relative_link(report, page=page) if report.exists() else ""


def relative_link(file: Path, *, page: Path) -> str:
    """Return the address of a file from a page elsewhere."""
    return quote(os.path.relpath(file.resolve(), page.resolve().parent))


@functools.cache
def template_text(name: str) -> str:
    """Return a file of ours that goes into a page as it is."""
    return (_HERE / name).read_text(encoding="utf-8").strip()


def content_policy(scripts: tuple[str, ...], style: str) -> str:
    """Return the content policy that lets exactly these scripts and styles run, and no request leave."""
    allowed = " ".join(f"'{_digest(script)}'" for script in scripts)
    script_src = f"script-src {allowed}; " if scripts else ""
    return (
        f"default-src 'none'; {script_src}style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embed_json(data: JsonObject) -> Markup:
    """Return JSON that cannot end the ``<script>`` it stands in, whatever its strings hold."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII only, so that no character can surprise a parser
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704  (escaped above)


def chart_data(timeline: Timeline) -> JsonObject:
    """Return what the charts draw: plain numbers and labels."""
    return {
        "t0_ms": timeline.t0_ns / 1e6,
        "end_s": timeline.end_s,
        "panels": [_panel_data(panel) for panel in timeline.panels],
        "bands": [
            {"kind": band.kind, "label": plain(band.label), "start": band.start_s, "end": band.end_s}
            for band in timeline.bands
        ],
        "markers": [
            {"name": marker.name, "label": plain(marker.label), "t": marker.t_s}
            for marker in timeline.markers
        ],
    }


def _panel_data(panel: Panel) -> JsonObject:
    return {
        "unit": panel.unit,
        "series": [
            {
                "label": plain(series.label),
                "role": series.role,
                "again": series.is_again,
                "stepped": series.stepped,
                "t": [round(t_s, 4) for t_s, _ in series.points],
                "v": [None if v is None else float(f"{v:.{_DIGITS}g}") for _, v in series.points],
            }
            for series in panel.series
        ],
    }

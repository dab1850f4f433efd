"""Coverage as one HTML page: shares of each published table, cause by cause, and what the runs have shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from probes.json_types import JsonObject
from reports.coverage import LADDER, Coverage, RowCoverage, Shown, TableCoverage
from reports.coverage_text import (
    LEGEND,
    NONE,
    NOTHING_RAN,
    found_words,
    injected_words,
    missing_words,
    shown_words,
    ways,
)
from reports.html import report_link
from reports.page import render_page


def render_coverage(coverage: Coverage, *, page: Path, runs: Mapping[str, Path]) -> str:
    """Return the whole page, which will lie at ``page``; ``runs`` has their folders by id."""
    links = {run_id: report_link(folder, page=page) for run_id, folder in runs.items()}
    return render_page(
        "coverage.html.j2",
        c={
            "tables": [_table(table) for table in coverage.tables],
            "categories": coverage.categories,
            "runs": coverage.runs,
            "not_counted": coverage.not_counted,
        },
        shown=_shown(coverage, links),
        found_words=found_words,
        ways=ways,
        legend=LEGEND[:1].upper() + LEGEND[1:],
        none_word=NONE,
        nothing_ran=NOTHING_RAN,
    )


def _table(table: TableCoverage) -> JsonObject:
    return {
        "table": table.table,
        "shown_share": table.shown_share,
        "detectable": table.share(lambda row: row.is_detectable),
        "in_service": table.share(lambda row: row.is_detectable_in_service),
        "injectable": table.share(lambda row: row.is_injectable),
        "rows": [_row(table, row) for row in table.rows],
    }


def _row(table: TableCoverage, row: RowCoverage) -> JsonObject:
    return {
        "cause": row.row.cause,
        "count": row.row.count,
        "share": row.row.count / table.table.total,
        "missing": missing_words(row),
        "found": found_words(row),
        "injected": injected_words(row),
        "shown": shown_words(row),
    }


def _shown(coverage: Coverage, links: Mapping[str, str]) -> list[JsonObject]:
    """Return each fault that was shown, with the runs that showed it and where their reports are."""
    groups: dict[tuple[str, str, str], list[Shown]] = {}
    for one in (shown for category in coverage.categories for shown in category.shown):
        groups.setdefault((one.category, one.fault, one.fidelity), []).append(one)
    return [
        {
            "category": category,
            "fault": fault,
            "fidelity": LADDER[fidelity],
            "how": ", ".join(dict.fromkeys(one.how for one in found)),
            "runs": [(run, links.get(run, "")) for run in dict.fromkeys(one.run for one in found)],
        }
        for (category, fault, fidelity), found in groups.items()
    ]

"""Coverage in words: the shares of each published table with the gaps first, then category by category."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from probes.json_types import JsonObject
from reports.coverage import LADDER, CategoryCoverage, Coverage, RowCoverage, Shown, TableCoverage
from reports.text import one_line

SCHEMA_VERSION = 1
WIDTH = 80
NONE = "–"
LEGEND = (
    "found: in service, or only at acceptance; brought about: "
    + ", ".join(f"{rung} {words}" for rung, words in LADDER.items())
    + "; shown: found or healed in these runs, above S. Shares are by count. A cause that may be one of "
    "several counts when all of them are covered; one that its source does not break down never does."
)
NOTHING_RAN = "No runs were given: nothing has been shown. `overproof coverage RUNS` reads them."


def found_words(one: RowCoverage | CategoryCoverage) -> str:
    """Say where something can be found."""
    if isinstance(one, CategoryCoverage):
        in_service, at_all = one.is_found_in_service, bool(one.detectors)
    else:
        in_service, at_all = one.is_detectable_in_service, one.is_detectable
    return "service" if in_service else "acceptance" if at_all else NONE


def injected_words(row: RowCoverage) -> str:
    """Say at which fidelity all that a cause may be can be brought about."""
    return row.fidelities or ("mixed" if row.is_injectable else NONE)


def shown_words(row: RowCoverage) -> str:
    """Say at which fidelity all that a cause may be was shown."""
    if not row.is_shown:
        return NONE
    return "".join(rung for rung in LADDER if any(rung in c.shown_at for c in row.categories))


def missing_words(row: RowCoverage) -> str:
    """Name what of a cause that may be several has not been shown; empty: all of it, or there is only one."""
    if len(row.categories) < 2 or row.is_shown:
        return ""
    return "not shown of it: " + ", ".join(c.id for c in row.categories if not c.shown)


def ways(category: CategoryCoverage) -> list[str]:
    """Name what brings a category about, the strongest first."""
    order = [*LADDER]
    ranked = sorted(category.injections, key=lambda i: -order.index(i.fidelity))
    return list(dict.fromkeys(injection.fault for injection in ranked))


def shown_lines(shown: Sequence[Shown]) -> Iterator[tuple[Shown, str, int]]:
    """Yield each fault that was shown, how it was found or healed, and in how many runs."""
    groups: dict[tuple[str, str, str], list[Shown]] = {}
    for one in shown:
        groups.setdefault((one.category, one.fidelity, one.fault), []).append(one)
    for found in groups.values():
        hows = ", ".join(dict.fromkeys(one.how for one in found))
        yield found[0], hows, len({one.run for one in found})


def render_lines(coverage: Coverage) -> Iterator[str]:
    """Yield the terminal's lines, none longer than 80 columns."""
    for table in coverage.tables:
        yield from _table_lines(table)
    yield "Category by category"
    yield f"  {'category':<21} {'found':<10} {'brought':<7} {'shown':<5}  by"
    for category in coverage.categories:
        by = ", ".join(ways(category)) or NONE
        rungs = category.fidelities or NONE
        head = f"  {category.id:<21} {found_words(category):<10} {rungs:<7} {category.shown_at or NONE:<5}  "
        yield head + one_line(by, WIDTH - len(head))
    yield ""
    yield from _runs_lines(coverage)
    yield from wrap(LEGEND, WIDTH)


def _table_lines(table: TableCoverage) -> Iterator[str]:
    yield from wrap(f"{table.table.title} ({table.table.total:g} {table.table.unit})", WIDTH)
    yield f"  shown to be found or healed  {table.shown_share:>7.1%}"
    detected = table.share(lambda row: row.is_detectable)
    serving = table.share(lambda row: row.is_detectable_in_service)
    yield f"  can be found                 {detected:>7.1%}  in service {serving:.1%}"
    either = table.share(lambda row: row.is_detectable or row.is_injectable)
    injected = table.share(lambda row: row.is_injectable)
    rungs = (f"{rung} {share:.0%}" for rung, share in table.injectable_by_rung().items())
    yield f"  can be brought about         {injected:>7.1%}  {', '.join(rungs)}"
    yield f"  the one or the other         {either:>7.1%}"
    yield f"   {'share':>6} {'count':>6}  {'cause':<34} {'found':<10} {'brought':<7} shown"
    for row in table.rows:
        cause = wrap(row.row.cause, 34)
        share = row.row.count / table.table.total
        yield (
            f"   {share:>6.1%} {row.row.count:>6g}  {cause[0]:<34} {found_words(row):<10} "
            f"{injected_words(row):<7} {shown_words(row)}"
        )
        for text in [*cause[1:], *wrap(missing_words(row), WIDTH - 20)]:
            yield f"{'':18}{text}"
    yield ""


def _runs_lines(coverage: Coverage) -> Iterator[str]:
    if not coverage.runs and not coverage.not_counted:
        yield NOTHING_RAN
    else:
        yield f"Shown in {_runs(len(coverage.runs))}"
    shown = [one for category in coverage.categories for one in category.shown]
    for one, how, runs in shown_lines(shown):
        text = f"{one.category}: {one.fault} ({one.fidelity}): {how}; {_runs(runs)}"
        yield from wrap(one_line(text, 400), WIDTH, initial_indent="  ", subsequent_indent="    ")
    for text in coverage.not_counted:
        yield from wrap(
            f"not counted: {one_line(text)}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    yield ""


def _runs(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'}"


def coverage_document(coverage: Coverage) -> JsonObject:
    """Return what ``--json`` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tables": [_table_document(table) for table in coverage.tables],
        "categories": [_category_document(category) for category in coverage.categories],
        "runs": list(coverage.runs),
        "not_counted": list(coverage.not_counted),
    }


def _table_document(table: TableCoverage) -> JsonObject:
    return {
        "id": table.table.id,
        "title": table.table.title,
        "source": table.table.source,
        "unit": table.table.unit,
        "total": table.table.total,
        "shown_share": table.shown_share,
        "detectable_share": table.share(lambda row: row.is_detectable),
        "detectable_in_service_share": table.share(lambda row: row.is_detectable_in_service),
        "injectable_share": table.share(lambda row: row.is_injectable),
        "detectable_or_injectable_share": table.share(lambda row: row.is_detectable or row.is_injectable),
        "injectable_above_s_share": table.share(lambda row: row.is_injectable_above_s),
        "injectable_share_by_fidelity": table.injectable_by_rung(),
        "rows": [_row_document(row) for row in table.rows],
    }


def _row_document(row: RowCoverage) -> JsonObject:
    return {
        "cause": row.row.cause,
        "count": row.row.count,
        "categories": list(row.row.categories),
        "is_detectable": row.is_detectable,
        "is_detectable_in_service": row.is_detectable_in_service,
        "is_injectable": row.is_injectable,
        "fidelities": list(row.fidelities),
        "is_shown": row.is_shown,
    }


def _category_document(category: CategoryCoverage) -> JsonObject:
    return {
        "id": category.id,
        "title": category.title,
        "detectors": [{"detector": d.detector, "when": d.when, "by": d.by} for d in category.detectors],
        "injections": [
            {"fault": i.fault, "fidelity": i.fidelity, "needs": list(i.needs)} for i in category.injections
        ],
        "shown": [
            {"fault": s.fault, "fidelity": s.fidelity, "how": s.how, "run": s.run} for s in category.shown
        ],
    }

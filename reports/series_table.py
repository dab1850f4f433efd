"""A sampled series as a table of SQL, sealed or not: what a row is about, when, and its columns as numbers.

For series with more rows than one wants to hold as objects; ``table.read_series`` reads the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from probes.errors import RecordError
from reports.record import SERIES_FOLDER
from reports.request_table import line_length
from reports.run import Run
from reports.table import survey
from reports.text import first_line

# Columns that say what a row is about, the most telling first, and those that tell its lines apart.
SUBJECTS = ("subject", "gpu", "uuid", "device", "link", "worker", "replica", "name", "host")
QUALIFIERS = ("format", "dtype", "size_bytes", "pattern", "path", "phase")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UBIGINT", "FLOAT", "DOUBLE")
_MEMORY = "512MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTable:
    """The table ``series`` of an open connection: ``line``, ``t_ns`` and each figure under its own name."""

    connection: duckdb.DuckDBPyConnection
    figures: tuple[str, ...]
    claims: tuple[str, ...]  # truths
    columns: frozenset[str]

    def rows(self, query: str, *needed: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query over all columns as they are; none where a needed one is missing."""
        return self.connection.execute(query.format("rows")).fetchall() if self.columns >= {*needed} else []


@contextlib.contextmanager
def open_series(run: Run, name: str) -> Iterator[SeriesTable]:
    """Yield the rows of a series that have a time, by the controller's clock.

    Raises:
        RecordError: it cannot be read.
    """
    folder = run.path / SERIES_FOLDER
    part = folder / f"{name}.parquet"
    part = part if part.exists() else folder / f"{name}.ndjson"
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute("SET threads = 2")
            connection.execute("SET enable_progress_bar = false")
            columns = _open(connection, part)
            figures = tuple(name for name, kind in columns.items() if kind in (*_NUMBERS, "JSON"))
            claims = tuple(name for name, kind in columns.items() if kind == "BOOLEAN")
            if columns.get("t_ns") not in (*_NUMBERS, "JSON"):
                yield SeriesTable(connection=connection, figures=(), claims=(), columns=frozenset(columns))
                return
            connection.execute(_table(columns, figures, claims, run.clock_offset_s))
            yield SeriesTable(
                connection=connection, figures=figures, claims=claims, columns=frozenset(columns)
            )
    except duckdb.Error as error:
        raise RecordError(f"{part}: cannot be read: {first_line(error)}") from error


def _open(connection: duckdb.DuckDBPyConnection, part: Path) -> dict[str, str]:
    """Make the view ``rows`` and return its columns with their types."""
    source = f"read_parquet({_literal(part)})"
    if part.suffix == ".ndjson":
        columns, *_ = survey(part)
        if not columns:
            return {}
        listed = ", ".join(f"{quoted(name)}: '{kind}'" for name, kind in columns.items())
        options = f"format='newline_delimited', ignore_errors=true, {line_length(part)}"
        source = f"read_json({_literal(part)}, {options}, columns={{{listed}}})"
    connection.execute(f"CREATE VIEW rows AS SELECT * FROM {source}")  # noqa: S608
    return {str(row[0]): str(row[1]) for row in connection.execute("DESCRIBE rows").fetchall()}


def _table(
    columns: Mapping[str, str],
    figures: tuple[str, ...],
    claims: tuple[str, ...],
    offsets_s: Mapping[str, float],
) -> str:
    t_ns = _number("t_ns", columns["t_ns"], kind="BIGINT")
    if offsets_s and "host" in columns:
        cases = "".join(
            f" WHEN {_text(host)} THEN {round(offset_s * 1e9)}" for host, offset_s in offsets_s.items()
        )
        t_ns = f"{t_ns} - CASE host{cases} ELSE 0 END"
    selected = [f"{_number(name, columns[name])} AS {quoted(name)}" for name in figures if name != "t_ns"]
    selected += [quoted(name) for name in claims]
    selected += [f"{_line(columns)} AS line", f"{t_ns} AS t_ns"]
    return f"""
        CREATE TEMP TABLE series AS SELECT {", ".join(selected)}
        FROM rows WHERE {_number("t_ns", columns["t_ns"], kind="BIGINT")} IS NOT NULL ORDER BY line, t_ns
    """  # noqa: S608


def _line(columns: Mapping[str, str]) -> str:
    """Return SQL for what a row is about, in a word or two; the empty string where no column says so."""
    words = [f"nullif(CAST({quoted(name)} AS VARCHAR), '')" for name in SUBJECTS if name in columns]
    qualifiers = [f"nullif(CAST({quoted(name)} AS VARCHAR), '')" for name in QUALIFIERS if name in columns]
    subject = f"coalesce({', '.join(words)})" if words else "NULL"
    return f"concat_ws(' ', {', '.join([subject, *qualifiers])})"


def _number(name: str, type_: str, *, kind: str = "DOUBLE") -> str:
    """Return SQL for a number that can be drawn; of a column that holds anything, only what is one."""
    column = quoted(name)
    if type_ == "JSON":
        column = f"CASE WHEN json_type({column}) IN ('BIGINT', 'UBIGINT', 'DOUBLE') THEN {column} END"
    cast = f"TRY_CAST({column} AS {kind})"
    return cast if kind == "BIGINT" else f"CASE WHEN isfinite({cast}) THEN {cast} END"


def quoted(name: str) -> str:
    """Return a column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(path: Path) -> str:
    return _text(str(path))

"""The compact tables of a fleet's record, opened for SQL: all that judging and reports of a fleet read.

12,500 hosts with 100,000 GPUs make a million rows; no object is made of a row that nobody asks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType

import duckdb

from probes.errors import RecordError
from reports.record import SERIES_FOLDER
from reports.run import Run
from reports.text import first_line

_TEXT, _NUMBER, _WHOLE, _NAMES = "VARCHAR", "DOUBLE", "BIGINT", "VARCHAR[]"
_COMMON = {"t_ns": _WHOLE, "host": _TEXT}
# Each table with its columns; a column that nobody wrote, or of another type, reads as NULL.
TABLES: dict[str, dict[str, str]] = {
    "host": _COMMON
    | {
        "state": _TEXT,
        "outcome": _TEXT,
        "run": _TEXT,
        "seconds": _NUMBER,
        "clock_offset_s": _NUMBER,
        "detail": _TEXT,
        "rack": _TEXT,
        "pdu": _TEXT,
        "hall": _TEXT,
        "switch": _TEXT,
        "nvlink_domain": _TEXT,
    },
    "host_finding": _COMMON
    | {
        "rule": _TEXT,
        "subject": _TEXT,
        "outcome": _TEXT,
        "observed": _TEXT,
        "expected": _TEXT,
        "next_step": _TEXT,
        "is_explained": "BOOLEAN",  # by another finding of that host; NULL: not told, as before that was kept
    },
    "gpu_result": _COMMON
    | {"gpu": _TEXT, "serial": _TEXT, "model": _TEXT, "metric": _TEXT, "value": _NUMBER, "unit": _TEXT},
    "digest": _COMMON | {"gpu": _TEXT, "product": _TEXT, "digest": _TEXT},
    "fingerprint": _COMMON | {"part": _TEXT, "key": _TEXT, "value": _TEXT},
    "net": {
        "t_ns": _WHOLE,
        "round": _WHOLE,
        "trial": _TEXT,
        "design": _TEXT,
        "hosts": _NAMES,
        "path": _TEXT,
        "collective": _TEXT,
        "size_bytes": _WHOLE,
        "ranks": _WHOLE,
        "iterations": _WHOLE,
        "busbw_gbps": _NUMBER,
        "busbw_worst_gbps": _NUMBER,
        "wrong_elements": _WHOLE,
        "state": _TEXT,
        "is_complete": "BOOLEAN",
        "transport": _TEXT,
        "seconds": _NUMBER,
        "detail": _TEXT,
        "blamed": _NAMES,
    },
}
PLACES = ("rack", "pdu", "hall", "switch", "nvlink_domain")
_MEMORY, _THREADS = "1GB", 2
_NOTHING = "(SELECT 1 WHERE false)"  # the source of a table that has no rows
_TOLD = "_as_recorded"

Value = str | int | float | bool | None | list[str]


class FleetTables:
    """A connection that has a view for every table, empty where the record has no such rows.

    A table that cannot be read is an error, or is empty and named in ``problems`` where one shows what there
    is: a host without its row never reported, so it passes nothing.
    """

    def __init__(self, run: Run, *, shows_the_rest: bool = False) -> None:
        self.problems: list[str] = []
        self._connection = duckdb.connect()
        try:
            # Nothing is put anywhere on disk: a report may be made in a folder that must not change.
            self._connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = {_THREADS}")
            self._connection.execute("SET temp_directory = ''; SET preserve_insertion_order = false")
            for name, columns in TABLES.items():
                try:
                    self._open(run, name, columns)
                except duckdb.Error as error:
                    if not shows_the_rest:
                        raise
                    self.problems.append(f"{name}.parquet: cannot be read: {first_line(error)}")
                    self._define(name, columns, {}, _NOTHING, "")
        except duckdb.Error as error:
            self._connection.close()
            raise RecordError(f"{run.path}: its tables cannot be read: {first_line(error)}") from error

    def _open(self, run: Run, name: str, columns: dict[str, str]) -> None:
        """Make the view of one table: sealed, or as lines where the run did not come to its end."""
        sealed = run.path / SERIES_FOLDER / f"{name}.parquet"
        lines = run.path / SERIES_FOLDER / f"{name}.ndjson"
        if sealed.exists():
            source = f"read_parquet({_quoted(str(sealed))})"
        elif lines.exists() and lines.stat().st_size:
            kinds = ", ".join(f"{column}: 'JSON'" for column in columns)
            form = "format='newline_delimited', ignore_errors=true, maximum_object_size=67108864"
            source = f"read_json({_quoted(str(lines))}, columns={{{kinds}}}, {form})"
        else:
            source = _NOTHING
        there = {str(row[0]): str(row[1]) for row in self.rows(f"DESCRIBE SELECT * FROM {source}")}  # noqa: S608
        # A host that was repeated, as after --resume, counts by what came last.
        last = (
            "QUALIFY row_number() OVER (PARTITION BY host ORDER BY t_ns DESC) = 1" if name == "host" else ""
        )
        self._define(name, columns, there, source, last)

    def _define(
        self, name: str, columns: dict[str, str], there: dict[str, str], source: str, last: str
    ) -> None:
        wanted = ", ".join(
            f"{_cast(column, there[column], kind) if column in there else f'NULL::{kind}'} AS {column}"
            for column, kind in columns.items()
        )
        told = f"{name}{_TOLD}"
        rows = f"SELECT {wanted} FROM {source} {last}"  # noqa: S608
        self._connection.execute(f"CREATE TEMP VIEW {told} AS {rows}")
        self._connection.execute(f"CREATE TEMP VIEW {name} AS FROM {told}")

    @contextlib.contextmanager
    def planted(self, name: str, column: str, value: str, *, where: dict[str, str]) -> Iterator[None]:
        """Let a table say something else for a while in the rows that have these values, to prove a rule.

        ``value`` is an expression over the row. The record is not touched.
        """
        rows = " AND ".join(f"{key} = {_quoted(text)}" for key, text in where.items())
        planted = f"CASE WHEN {rows} THEN {value} ELSE {column} END"
        rows = f"SELECT * REPLACE ({planted} AS {column}) FROM {name}{_TOLD}"  # noqa: S608
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {rows}")
        try:
            yield
        finally:
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM {name}{_TOLD}")

    def rows(self, query: str, *values: Value) -> list[tuple[object, ...]]:
        """Return what a query finds."""
        return self._connection.execute(query, list(values)).fetchall()

    def run(self, statement: str, *values: Value) -> None:
        """Execute what returns nothing, such as the making of a temporary table."""
        self._connection.execute(statement, list(values))

    def fill(self, table: str, columns: dict[str, str], rows: Sequence[Sequence[object]]) -> None:
        """Make a temporary table and put rows into it, a column at a time: thousands take no time so."""
        kinds = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} ({kinds})")
        if rows:
            values = ", ".join(f"unnest(?::{kind}[])" for kind in columns.values())
            by_column = [list(column) for column in zip(*rows, strict=True)]
            self._connection.execute(f"INSERT INTO {table} SELECT {values}", by_column)

    def write(self, query: str, path: str, form: str) -> None:
        """Write what a query finds into a file."""
        self._connection.execute(f"COPY ({query}) TO {_quoted(path)} ({form})")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> FleetTables:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cast(column: str, found: str, kind: str) -> str:
    """Return a column in the type that is wanted; what cannot be taken for it, and NaN, is NULL."""
    if kind == _TEXT:
        return f"({column} ->> '$')" if found == "JSON" else f"{column}::VARCHAR"
    cast = f"TRY_CAST({column} AS {kind})"
    return f"CASE WHEN isfinite({cast}) THEN {cast} END" if kind == _NUMBER else cast


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

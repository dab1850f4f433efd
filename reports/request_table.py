"""Request rows by SQL: their columns, one table over all parts of a run, and parts moved to another clock.

For runs with more requests than one wants to hold as objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import duckdb

from probes.errors import RecordError
from probes.request import Request
from reports.record import REQUESTS_FOLDER
from reports.text import first_line

_TYPES = {
    "int": "BIGINT",
    "float": "DOUBLE",
    "str": "VARCHAR",
    "bool": "BOOLEAN",
    "tuple[int, ...]": "BIGINT[]",
}
# Column: its type. Known beforehand, so that nothing has to be guessed from millions of lines.
REQUEST_COLUMNS = {field.name: _TYPES[str(field.type).removesuffix(" | None")] for field in fields(Request)}
_LINE_BYTES = 2**24  # DuckDB reserves a multiple of it for each thread; a part with longer lines needs more
# How every part is written. The rows of one group are in memory together when they are read or written; six
# times as many in a group, as DuckDB has it, make files no smaller.
PARQUET = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480"
# Of DuckDB; beyond it, it uses the disk.
_MEMORY = "512MB"


@contextlib.contextmanager
def open_requests(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection in which ``requests`` is the table of all rows of a run, sealed or not.

    Raises:
        RecordError: a part cannot be read.
    """
    parts = folder / REQUESTS_FOLDER
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute("SET threads = 2")  # each takes memory of its own
            connection.execute("SET enable_progress_bar = false")  # it would go to stdout
            connection.execute(f"SET temp_directory = {_literal(folder / '.sql')}")
            selects = [_select(connection, part) for part in _parts(parts)]
            nothing = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in REQUEST_COLUMNS.items())
            table = " UNION ALL ".join(selects) or f"SELECT {nothing} WHERE false"
            connection.execute(f"CREATE VIEW requests AS {table}")
            yield connection
    except duckdb.Error as error:
        raise RecordError(f"{parts}: cannot be read: {first_line(error)}") from error
    finally:
        _remove_if_empty(folder / ".sql")


def _parts(folder: Path) -> list[Path]:
    """Return each part once: one that is sealed as Parquet, the others as they are being written."""
    sealed = sorted(folder.glob("*.parquet"))
    stems = {part.stem for part in sealed}
    return [*sealed, *(part for part in sorted(folder.glob("*.ndjson")) if part.stem not in stems)]


def _select(connection: duckdb.DuckDBPyConnection, part: Path) -> str:
    """Return the SELECT of one part, with every column in its type whatever version wrote it."""
    if part.suffix == ".parquet":
        rows = f"read_parquet({_literal(part)})"
        described = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()  # noqa: S608
        there = {str(row[0]) for row in described}
    else:
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in REQUEST_COLUMNS.items())
        options = f"format='newline_delimited', ignore_errors=true, {line_length(part)}"
        lines = f"read_json({_literal(part)}, {options}, columns={{{columns}}})"
        # Parsed once: a report asks a dozen questions.
        rows, there = _identifier(part.name), set(REQUEST_COLUMNS)
        connection.execute(f"CREATE TEMP TABLE {rows} AS SELECT * FROM {lines}")  # noqa: S608
    wanted = ", ".join(
        f"CAST({name if name in there else 'NULL'} AS {kind}) AS {name}"
        for name, kind in REQUEST_COLUMNS.items()
    )
    return f"SELECT {wanted} FROM {rows} WHERE t_intended_ns IS NOT NULL"  # noqa: S608


def line_length(part: Path) -> str:
    """Return the option of DuckDB's by which it takes the longest line of a part."""
    with part.open("rb") as file:
        return f"maximum_object_size={max(_LINE_BYTES, max(map(len, file), default=0))}"


def shift_times(part: Path, *, by_ns: int) -> None:
    """Move every time of a Parquet part, of requests or of a series, to a clock that is ahead by ``by_ns``.

    Raises:
        RecordError: it cannot be rewritten.
    """
    if not by_ns or not part.exists():
        return
    beside = part.with_suffix(".parquet.part")
    try:
        with duckdb.connect() as connection:
            rows = f"read_parquet({_literal(part)})"
            described = connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()  # noqa: S608
            times = [
                str(row[0])
                for row in described
                if str(row[0]).startswith("t_") and str(row[0]).endswith("ns") and str(row[1]) == "BIGINT"
            ]
            moved = ", ".join(f"{name} + ({by_ns}) AS {name}" for name in times)
            select = f"SELECT * REPLACE ({moved}) FROM {rows}" if moved else f"SELECT * FROM {rows}"  # noqa: S608
            connection.execute(f"COPY ({select}) TO {_literal(beside)} ({PARQUET})")
        beside.replace(part)
    except (duckdb.Error, OSError) as error:
        beside.unlink(missing_ok=True)
        raise RecordError(f"{part}: cannot be moved to another clock: {error}") from error


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

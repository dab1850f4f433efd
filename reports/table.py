"""Rows of a run: NDJSON while it runs, Parquet once it is sealed; DuckDB reads and converts both."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from probes.errors import RecordError
from probes.json_types import JsonObject
from probes.request import Request, request_from_json
from probes.request_columns import ROWS_AT_ONCE, RequestColumns, batches_of, to_columns
from reports.record import REQUESTS_FOLDER, SERIES_FOLDER
from reports.request_table import PARQUET, REQUEST_COLUMNS, line_length
from reports.run import Run, read_ndjson
from reports.text import first_line

_INT64 = range(-(2**63), 2**63)
_EXACT_IN_DOUBLE = range(-(2**53), 2**53 + 1)
# What a column may hold together; whatever else meets in one column is kept as JSON, each value as it was.
_SCALARS = {
    frozenset({"BOOLEAN"}): "BOOLEAN",
    frozenset({"SMALLINT"}): "BIGINT",
    frozenset({"BIGINT"}): "BIGINT",
    frozenset({"SMALLINT", "BIGINT"}): "BIGINT",
    frozenset({"DOUBLE"}): "DOUBLE",
    frozenset({"DOUBLE", "SMALLINT"}): "DOUBLE",  # SMALLINT: exact as a double too
    frozenset({"VARCHAR"}): "VARCHAR",
}
_LIST = "[]"
_SPAN_SLACK_NS = 60 * 10**9  # a sample may be written a little before or after what it belongs to


def seal(folder: Path) -> dict[str, int]:
    """Turn the finished NDJSON parts of a run into Parquet; return the unreadable lines of each part.

    Call it when their writers have ended. A part that cannot be converted stays, and stays readable.

    Raises:
        RecordError: a part could not be converted; the others were.
    """
    unreadable: dict[str, int] = {}
    problems: list[str] = []
    for name in (SERIES_FOLDER, REQUESTS_FOLDER):
        for part in sorted(folder.glob(f"{name}/*.ndjson")):
            try:
                lost = _seal_part(part)
            except RecordError as error:
                problems.append(str(error))
                continue
            if lost:
                unreadable[f"{name}/{part.stem}"] = lost
    if problems:
        raise RecordError("; ".join(problems))
    return unreadable


def _seal_part(part: Path) -> int:
    if _has_request_columns(part):
        with contextlib.suppress(RecordError):  # a torn line: look at every value, and say what is lost
            return _seal_as(part, REQUEST_COLUMNS, _count_lines(part), 0)
    return _seal_as(part, *survey(part))


def _has_request_columns(part: Path) -> bool:
    """Whether a part's rows are requests of this version, whose types need no look at each value."""
    if part.parent.name != REQUESTS_FOLDER:
        return False
    return next(read_ndjson(part), {}).keys() == REQUEST_COLUMNS.keys()


def _count_lines(part: Path) -> int:
    with part.open("rb") as file:
        return sum(1 for _ in file)


def _seal_as(part: Path, columns: dict[str, str], rows: int, lost: int) -> int:
    target, beside = part.with_suffix(".parquet"), part.with_suffix(".parquet.part")
    try:
        if columns:
            _convert(part, beside, columns)
            _check(beside, rows)
            beside.replace(target)
        part.unlink()
    except (duckdb.Error, OSError) as error:
        beside.unlink(missing_ok=True)
        raise RecordError(f"{part}: cannot be turned into Parquet: {error}; the part is kept") from error
    return lost


def _convert(part: Path, target: Path, columns: dict[str, str]) -> None:
    """Convert with stated column types: DuckDB's guesses would turn a name like 2026-11-21 into a date."""
    # A torn line reads as nothing but NULL, and so does a row of nulls, which says nothing either.
    somewhere = " OR ".join(f"{_identifier(name)} IS NOT NULL" for name in columns)
    options = f"ignore_errors=true, columns=?, {line_length(part)}"
    rows = f"read_json(?, format='newline_delimited', {options})"
    # Names and path stand quoted in the text: DuckDB takes them as parameters nowhere.
    parquet = f"{_literal(target)} ({PARQUET})"
    copy = f"COPY (SELECT * FROM {rows} WHERE {somewhere}) TO {parquet}"  # noqa: S608
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # each takes as much memory, and two were no faster
        connection.execute("SET enable_progress_bar = false")  # it would go to stdout
        connection.execute(copy, [str(part), columns])


def _check(sealed: Path, rows: int) -> None:
    """Nothing may be lost on the way: a value that DuckDB cannot take makes it drop the whole row."""
    with duckdb.connect() as connection:
        found = connection.execute("SELECT count(*) FROM read_parquet(?)", [str(sealed)]).fetchone()
    if found is None or found[0] != rows:
        raise duckdb.ConversionException(f"{rows} rows went in, {found and found[0]} came out")


def survey(part: Path) -> tuple[dict[str, str], int, int]:
    """Return the type of each key of an NDJSON file, its rows that say something, and its lost lines."""
    kinds: dict[str, set[str]] = {}
    rows = lines = 0
    for row in read_ndjson(part):
        lines += 1
        rows += any(value is not None for value in row.values())
        for key, value in row.items():
            known = kinds.setdefault(key, set())
            if value is not None:
                known.add(_kind(value))
    with part.open("rb") as file:
        lost = sum(1 for line in file if line.strip()) - lines
    if len({key.lower() for key in kinds}) != len(kinds):
        raise RecordError(f"{part}: has keys that differ only in case, which no table can; the part is kept")
    return {key: _column_type(known) for key, known in kinds.items()}, rows, lost


def _kind(value: object) -> str:
    """Return the narrowest type of one value; JSON where a table has no exact one."""
    if isinstance(value, bool):
        return "BOOLEAN"
    if isinstance(value, int):
        return "SMALLINT" if value in _EXACT_IN_DOUBLE else "BIGINT" if value in _INT64 else "JSON"
    if isinstance(value, float):
        return "DOUBLE"
    if isinstance(value, str):
        return "VARCHAR"
    if isinstance(value, list):
        kinds = frozenset(map(_kind, value))
        return f"{_SCALARS.get(kinds, 'JSON')}{_LIST}" if kinds else _LIST
    return "JSON"


def _column_type(kinds: set[str]) -> str:
    """Return the type that holds every value of a column exactly."""
    if not kinds:
        return "VARCHAR"
    if any(_LIST in kind for kind in kinds):
        items = frozenset(kind.removesuffix(_LIST) for kind in kinds if kind != _LIST)
        is_list = all(kind.endswith(_LIST) for kind in kinds) and "JSON" not in items
        item = "BIGINT" if not items else _SCALARS.get(items)
        return f"{item}{_LIST}" if is_list and item else "JSON"
    return _SCALARS.get(frozenset(kinds), "JSON")


def read_series(
    run: Run,
    series: str,
    *,
    wanted: Mapping[str, str] | None = None,
    span_ns: tuple[int, int] | None = None,
) -> list[JsonObject]:
    """Return the rows of ``series/<series>`` in the order they were written, by the controller's clock.

    ``wanted`` (texts by column) and ``span_ns`` keep days of samples out of memory: rows that cannot fit are
    not read. Some that do not fit may still come, above all of a part that is not sealed yet.
    """
    furthest_ns = round(1e9 * max(map(abs, run.clock_offset_s.values()), default=0.0)) + _SPAN_SLACK_NS
    padded = span_ns and (span_ns[0] - furthest_ns, span_ns[1] + furthest_ns)
    rows = _read(run.path / SERIES_FOLDER, series, wanted=wanted or {}, span_ns=padded)
    for row in rows if run.clock_offset_s else ():
        offset_s = run.clock_offset_s.get(str(row.get("host")))
        if offset_s and isinstance(row.get("t_ns"), int):
            row["t_ns"] -= round(offset_s * 1e9)
    return rows


def count_rows(run: Run, series: str) -> int:
    """Return how many rows a sealed series has; 0 for one that is not sealed: nobody has counted them."""
    sealed = run.path / SERIES_FOLDER / f"{series}.parquet"
    if not sealed.exists():
        return 0
    try:
        with duckdb.connect() as connection:
            found = connection.execute("SELECT count(*) FROM read_parquet(?)", [str(sealed)]).fetchone()
    except duckdb.Error as error:
        raise RecordError(f"{sealed}: cannot be read: {first_line(error)}") from error
    return int(found[0]) if found else 0


def series_names(run: Run) -> list[str]:
    """Return the names of the series that a run has."""
    return _stems(run.path / SERIES_FOLDER)


def read_requests(folder: Path) -> list[Request]:
    """Return every request of a load run, by intended time, from all workers and parts."""
    parts = folder / REQUESTS_FOLDER
    requests: list[Request] = []
    for stem in _stems(parts):
        for batch in _batches(parts, stem):
            rows = (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))
            requests += [request_from_json(row) for row in rows if row.get("t_intended_ns") is not None]
    requests.sort(key=lambda request: (request.t_intended_ns, request.index))
    return requests


def read_columns(folder: Path) -> RequestColumns:
    """Return the same as columns: for runs with more requests than one wants to hold as objects."""
    parts = folder / REQUESTS_FOLDER
    return to_columns(batch for stem in _stems(parts) for batch in _batches(parts, stem))


def _batches(folder: Path, stem: str) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Yield the rows of one part a few at a time, by column; texts that come again are held once."""
    sealed = folder / f"{stem}.parquet"
    if not sealed.exists():
        yield from batches_of(read_ndjson(folder / f"{stem}.ndjson"))
        return
    texts: dict[str, str] = {}
    try:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")
            connection.execute("SET enable_progress_bar = false")  # it would go to stdout
            cursor = connection.execute("SELECT * FROM read_parquet(?)", [str(sealed)])
            columns = [(str(column[0]), str(column[1])) for column in cursor.description or []]
            while rows := cursor.fetchmany(ROWS_AT_ONCE):
                yield {
                    name: [texts.setdefault(v, v) for v in values] if kind == "VARCHAR" else values
                    for (name, kind), values in zip(columns, zip(*rows, strict=True), strict=True)
                }
    except duckdb.Error as error:
        raise RecordError(f"{sealed}: cannot be read: {first_line(error)}") from error


def _stems(folder: Path) -> list[str]:
    return sorted({path.stem for path in folder.glob("*") if path.suffix in (".parquet", ".ndjson")})


def _read(
    folder: Path,
    stem: str,
    *,
    wanted: Mapping[str, str] | None = None,
    span_ns: tuple[int, int] | None = None,
) -> list[JsonObject]:
    sealed = folder / f"{stem}.parquet"
    if not sealed.exists():
        return list(read_ndjson(folder / f"{stem}.ndjson"))
    try:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")  # keeps the order of the file
            where, values = _condition(connection, sealed, wanted or {}, span_ns)
            query = f"SELECT * FROM read_parquet(?){where}"  # noqa: S608
            cursor = connection.execute(query, [str(sealed), *values])
            description = cursor.description or []
            rows = cursor.fetchall()
    except duckdb.Error as error:
        raise RecordError(f"{sealed}: cannot be read: {first_line(error)}") from error
    names = [str(column[0]) for column in description]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    for column in description:
        if str(column[1]) == "JSON":
            _decode(found, str(column[0]))
    return found


def _condition(
    connection: duckdb.DuckDBPyConnection,
    sealed: Path,
    wanted: Mapping[str, str],
    span_ns: tuple[int, int] | None,
) -> tuple[str, list[object]]:
    """Return a WHERE clause over those columns that the file has, and its values."""
    described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(sealed)]).fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    parts: list[str] = []
    values: list[object] = []
    for column, value in wanted.items():
        if types.get(column) == "VARCHAR":
            parts.append(f"{_identifier(column)} = ?")
            values.append(value)
    if span_ns is not None and types.get("t_ns") == "BIGINT":
        parts.append("t_ns BETWEEN ? AND ?")
        values += span_ns
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), values


def _decode(rows: list[JsonObject], column: str) -> None:
    for row in rows:
        if row[column] is not None:
            row[column] = json.loads(row[column])


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"

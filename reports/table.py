"""Rows of a run: NDJSON while it runs, Parquet once it is sealed; DuckDB reads and converts both."""

from __future__ import annotations

from pathlib import Path

import duckdb

from probes.errors import RecordError
from probes.json_types import JsonObject
from probes.request import Request, request_from_json
from reports.record import REQUESTS_FOLDER, SERIES_FOLDER
from reports.run import Run, read_ndjson


def seal(folder: Path) -> None:
    """Turn the finished NDJSON parts of a run into Parquet and remove them.

    Call it when their writers have ended. A part that cannot be converted stays, and stays readable.
    """
    for part in sorted([*folder.glob(f"{SERIES_FOLDER}/*.ndjson"), *folder.glob(f"{REQUESTS_FOLDER}/*.ndjson")]):
        _seal_part(part)


def _seal_part(part: Path) -> None:
    columns = _columns(part)
    target, beside = part.with_suffix(".parquet"), part.with_suffix(".parquet.part")
    try:
        if columns:
            _convert(part, beside, columns)
            beside.replace(target)
        part.unlink()
    except (duckdb.Error, OSError) as error:
        beside.unlink(missing_ok=True)
        raise RecordError(f"{part}: cannot be turned into Parquet: {error}; the part is kept") from error


def _convert(part: Path, target: Path, columns: dict[str, str]) -> None:
    """Convert with stated column types: DuckDB's own guesses would turn a name like 2026-11-21 into a date."""
    somewhere = " OR ".join(f'"{name}" IS NOT NULL' for name in columns)  # a torn line reads as all NULL
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_json(?, format='newline_delimited', ignore_errors=true, columns=?)"
            f" WHERE {somewhere}) TO '{_quoted(target)}' (FORMAT parquet, COMPRESSION zstd)",
            [str(part), columns],
        )


def _columns(part: Path) -> dict[str, str]:
    """Return the DuckDB type of each key of an NDJSON file; mixed types are kept as text."""
    found: dict[str, str] = {}
    for row in read_ndjson(part):
        for key, value in row.items():
            known, this = found.get(key), _type(value)
            if known is None or known == this or this is None:
                found[key] = known or this or ""
            else:
                found[key] = _WIDER.get(frozenset((known, this)), known if not this else "VARCHAR")
    return {key: kind or "VARCHAR" for key, kind in found.items()}


_WIDER = {
    frozenset(("", kind)): kind
    for kind in ("BOOLEAN", "BIGINT", "DOUBLE", "VARCHAR", "BIGINT[]", "DOUBLE[]", "VARCHAR[]", "JSON")
} | {
    frozenset(("BIGINT", "DOUBLE")): "DOUBLE",
    frozenset(("BIGINT[]", "DOUBLE[]")): "DOUBLE[]",
}


def _type(value: object) -> str | None:
    """Return the DuckDB type of one value; None where it says nothing (null, an empty list)."""
    if value is None or value == []:
        return None
    if isinstance(value, list):
        kinds = {_type(item) for item in value} - {None}
        return f"{kinds.pop()}[]" if len(kinds) == 1 else "DOUBLE[]" if kinds == {"BIGINT", "DOUBLE"} else "VARCHAR[]"
    if isinstance(value, dict):
        return "JSON"
    return {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}.get(type(value), "VARCHAR")


def read_series(run: Run, series: str) -> list[JsonObject]:
    """Return the rows of ``series/<series>`` in the order they were written."""
    return _read(run.path / SERIES_FOLDER, series)


def series_names(run: Run) -> list[str]:
    """Return the names of the series that a run has."""
    folder = run.path / SERIES_FOLDER
    return sorted({path.stem for path in folder.glob("*") if path.suffix in (".parquet", ".ndjson")})


def read_requests(folder: Path) -> list[Request]:
    """Return every request of a load run, by intended time, from all workers and parts."""
    parts = {path.stem for path in (folder / REQUESTS_FOLDER).glob("*") if path.suffix in (".parquet", ".ndjson")}
    rows = [row for part in sorted(parts) for row in _read(folder / REQUESTS_FOLDER, part)]
    requests = [request_from_json(row) for row in rows if row.get("t_intended_ns") is not None]
    return sorted(requests, key=lambda request: (request.t_intended_ns, request.index))


def _read(folder: Path, stem: str) -> list[JsonObject]:
    sealed = folder / f"{stem}.parquet"
    if not sealed.exists():
        return list(read_ndjson(folder / f"{stem}.ndjson"))
    try:
        with duckdb.connect() as connection:
            cursor = connection.execute("SELECT * FROM read_parquet(?)", [str(sealed)])
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        raise RecordError(f"{sealed}: cannot be read: {error}") from error


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")

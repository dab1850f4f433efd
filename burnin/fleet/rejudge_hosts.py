"""Judges the hosts of a recorded fleet by other figures: the record of each first, then the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from burnin.fleet.host_run import FINISHED_STATE
from burnin.fleet.judges import Judges
from burnin.override import keep_override
from probes.errors import ConfigError
from probes.event import to_json_line
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import SERIES_FOLDER, write_atomically
from reports.run import Run, load_run
from reports.table import read_series, seal


def rejudge_hosts(run: Run, expectations: Path) -> None:
    """Keep a user's figures in the record of every host, judge each by them, and put that into the tables.

    Raises:
        ConfigError: the file is wrong, or no host has a record to judge.
        RecordError: a record cannot be judged or written; the tables are then as before.
    """
    hosts = read_series(run, "host")
    able = [row for row in hosts if row.get("run") and (run.path / str(row["run"])).is_dir()]
    if not able:
        raise ConfigError(f"--expectations: no host of {run.path} has a record of its own to judge by them")
    found: list[JsonObject] = []
    with Judges() as judges:
        for row in able:
            folder = run.path / str(row["run"])
            keep_override(load_run(folder), expectations)
            judged = judges.judge(folder)
            row["outcome"] = _outcome(row, Outcome(judged["outcome"])).value
            about = {"t_ns": row["t_ns"], "host": row["host"]}
            found += [about | each for each in judged["tables"].get("host_finding", [])]
    again = {row["host"] for row in able}
    kept = [row for row in read_series(run, "host_finding") if row["host"] not in again]
    _replace(run, "host_finding", [*kept, *found])
    _replace(run, "host", hosts)
    seal(run.path)


def _outcome(row: JsonObject, judged: Outcome) -> Outcome:
    is_whole = row.get("state") == FINISHED_STATE
    return Outcome.INCONCLUSIVE if judged is Outcome.PASS and not is_whole else judged


def _replace(run: Run, table: str, rows: Sequence[JsonObject]) -> None:
    """Put other rows into a table; at every moment one of its two forms is whole."""
    folder = run.path / SERIES_FOLDER
    write_atomically(folder / f"{table}.ndjson", "".join(map(to_json_line, rows)))
    (folder / f"{table}.parquet").unlink(missing_ok=True)

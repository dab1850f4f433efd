"""What other programs read of a fleet: lists of hosts for ``srun``, and one table for the asset system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from probes.outcome import Outcome
from reports.fleet_tables import FleetTables
from reports.fleet_verdicts import HostVerdict, read_verdicts
from reports.record import write_atomically
from reports.run import Run
from reports.text import one_line

# For ``srun --nodelist=FILE`` and ``--exclude=FILE``, which want a path with a slash. Who is undecided is in
# neither: missing evidence is no reason to trust a host, and none to send it back.
LISTS = {
    Outcome.PASS: "passing_nodes.txt",
    Outcome.FAIL: "failing_nodes.txt",
    Outcome.INCONCLUSIVE: "undecided_nodes.txt",
}
ASSETS = ("assets.csv", "assets.parquet")
FILES = (*LISTS.values(), *ASSETS)


def write_fleet_files(run: Run) -> None:
    """Write the lists and the table into the run's folder; each file is whole or the one before.

    Raises:
        OSError: the folder cannot be written.
    """
    with FleetTables(run) as tables:
        _write(run, tables, read_verdicts(run, tables))


def _write(run: Run, tables: FleetTables, verdicts: Sequence[HostVerdict]) -> None:
    for outcome, name in LISTS.items():
        hosts = [verdict.host for verdict in verdicts if verdict.outcome is outcome]
        write_atomically(run.path / name, "".join(f"{one_line(host)}\n" for host in hosts))
    columns = dict.fromkeys(("host", "verdict", "state", "why"), "VARCHAR")
    tables.fill("verdict", columns, [(v.host, v.outcome.value, v.state, one_line(_why(v))) for v in verdicts])
    parts = [(f.subject, f.outcome.value) for f in run.findings if f.outcome is not None and f.counts]
    tables.fill("part_verdict", {"subject": "VARCHAR", "outcome": "VARCHAR"}, parts)
    # Without a single figure there is nothing to make columns of.
    has_figures = bool(tables.rows("SELECT 1 FROM gpu_result WHERE metric IS NOT NULL LIMIT 1"))
    query = _WITH_FIGURES if has_figures else f"{_ABOUT} ORDER BY v.host"
    for name, form in zip(ASSETS, ("FORMAT csv, HEADER", "FORMAT parquet"), strict=True):
        beside = run.path / f".{name}.part"
        try:
            tables.write(query, str(beside), form)
            beside.replace(run.path / name)
        except duckdb.Error as error:
            raise OSError(f"{run.path / name}: cannot be written: {error}") from error
        finally:
            Path(beside).unlink(missing_ok=True)


def _why(verdict: HostVerdict) -> str:
    return f"{verdict.because[0].rule}: {verdict.because[0].observed}" if verdict.because else ""


# One row for each GPU, and one without for a host of which none is known. Every figure is a column.
_ABOUT = """
WITH slots AS (SELECT host, part AS gpu, max(value) AS slot FROM fingerprint WHERE key = 'slot' GROUP BY ALL),
serials AS (
  SELECT host, max(value) AS serial FROM fingerprint WHERE key = 'serial' AND part = '' GROUP BY host
),
about AS (
  SELECT host, gpu, max(serial) AS gpu_serial, max(model) AS model FROM gpu_result GROUP BY host, gpu
),
said AS (
  SELECT subject, max(CASE outcome WHEN 'fail' THEN 2 WHEN 'inconclusive' THEN 1 ELSE 0 END) AS gravity
  FROM (SELECT subject, outcome FROM host_finding UNION ALL SELECT subject, outcome FROM part_verdict)
  WHERE starts_with(subject, 'gpu:') GROUP BY subject
)
SELECT v.host, s.serial AS host_serial, h.rack, h.pdu, h.hall, h.switch, h.nvlink_domain, p.slot, a.gpu,
       a.gpu_serial, a.model, v.verdict AS host_verdict, v.state AS host_state, v.why,
       CASE coalesce(gravity, CASE WHEN v.state = 'finished' AND a.gpu IS NOT NULL THEN 0 ELSE 1 END)
         WHEN 2 THEN 'fail' WHEN 1 THEN 'inconclusive' ELSE 'pass' END AS gpu_verdict
FROM verdict v LEFT JOIN host h USING (host) LEFT JOIN serials s USING (host) LEFT JOIN about a USING (host)
LEFT JOIN slots p ON p.host = a.host AND p.gpu = a.gpu LEFT JOIN said ON said.subject = 'gpu:' || a.gpu
"""
_WITH_FIGURES = f"""
SELECT known.*, figures.* EXCLUDE (host, gpu) FROM ({_ABOUT}) known LEFT JOIN (
  PIVOT (SELECT host, gpu, metric, value FROM gpu_result) ON metric USING last(value) GROUP BY host, gpu
) figures USING (host, gpu) ORDER BY known.host, known.slot, known.gpu
"""  # noqa: S608

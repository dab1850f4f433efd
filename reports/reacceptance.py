"""Back into service: what the burn-in after a fault on a host came to, read from a game day's record.

The game day starts it as a process, the memory of the fleet reads it: here is what both call the same.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probes.errors import SuiteError
from probes.outcome import Outcome
from reports.record import RUN_FILE
from reports.run import Run, load_run

if TYPE_CHECKING:
    from reports.fleet_verdicts import HostVerdict

FOLDER = "reaccept"  # in the run of a game day: the runs of the fleet that followed it
RULE = "reaccepted"  # of a game day, one finding a host that it has hit
OWN_DOING = "own_doing"  # evidence of such a finding: what speaks against the host itself, and not our fault
_LATEST = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnedIn:
    """What the burn-in of one host came to."""

    outcome: Outcome
    observed: str
    run: str  # the fleet's run
    report: str  # the host's own; empty: it has none


def runs_after(gameday: Path) -> list[Path]:
    """Return the runs of the burn-in after a game day, the oldest first."""
    found = (path.parent for path in gameday.glob(f"{FOLDER}/*/{RUN_FILE}"))
    return sorted(folder for folder in found if folder.name != _LATEST)


def read_burned_in(gameday: Path) -> dict[str, BurnedIn]:
    """Return by host what the last burn-in that it was to have came to; what cannot be read says nothing."""
    found: dict[str, BurnedIn] = {}
    for folder in runs_after(gameday):
        with contextlib.suppress(SuiteError, KeyError, TypeError, ValueError):
            found |= _of_run(load_run(folder))
    return found


def _of_run(run: Run) -> dict[str, BurnedIn]:
    from reports.fleet_sheet import FLEET  # with DuckDB, which most game days never need
    from reports.fleet_tables import FleetTables
    from reports.fleet_verdicts import read_verdicts

    if run.header.kind != FLEET:
        return {}
    with FleetTables(run) as tables:
        return {verdict.host: _burned_in(run, verdict) for verdict in read_verdicts(run, tables)}


def _burned_in(run: Run, verdict: HostVerdict) -> BurnedIn:
    told = verdict.because[0].observed if verdict.because else ""
    if verdict.state != "finished":
        observed = f"its burn-in did not come to its end: {told or verdict.state}"
    elif run.state != "finished":
        observed = f"the run of its burn-in is {run.state}" + (f": {told}" if told else "")
    else:
        observed = told or f"its burn-in came to {verdict.outcome}"
    report = str(run.path / verdict.run / "report.html") if verdict.run else ""
    return BurnedIn(outcome=verdict.outcome, observed=observed, run=str(run.path), report=report)

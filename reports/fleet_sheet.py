"""What a report says of a fleet beside its findings: counts, heat map, drift, rounds, where the lists are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probes.outcome import Outcome
from reports.fleet_drift import Drift, read_drift
from reports.fleet_files import FILES
from reports.fleet_heat import Heat, read_heat
from reports.fleet_tables import FleetTables
from reports.fleet_verdicts import HostVerdict, count_outcomes, read_verdicts
from reports.run import Run

FLEET = "fleet"  # kind of such a run
LINES_MAX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of the network stage."""

    number: int
    designs: str
    trials: int
    hosts: int
    broken: int  # trials that did not come to their end
    begin_s: float  # after the start of the run
    seconds: float  # of the longest trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Hosts against which the same speaks: all that hang on one bad switch take one line."""

    hosts: tuple[str, ...]
    verdict: HostVerdict  # of the first


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSheet:
    """Everything that is shown of a fleet as a whole."""

    name: str
    counts: Mapping[str, int]
    is_simulated: bool
    decided_against: tuple[Alike, ...]  # failed, then undecided; the first of them
    more_against: int  # hosts
    heat: Heat | None
    drifts: tuple[Drift, ...]  # what differs, or is not as wanted
    same: tuple[Drift, ...]
    rounds: tuple[Round, ...]
    files: tuple[str, ...]
    problems: tuple[str, ...]  # tables that cannot be read


def build_fleet_sheet(run: Run) -> FleetSheet | None:
    """Read the tables of a fleet's run; None: it is none."""
    if run.header.kind != FLEET:
        return None
    told = run.header.spec.get("fleet")
    fleet = told if isinstance(told, dict) else {}
    with FleetTables(run, shows_the_rest=True) as tables:
        verdicts = read_verdicts(run, tables)
        against = _against(verdicts)
        drifts = read_drift(tables, dict(fleet.get("expected_versions") or {}))
        differing = [
            d for d in drifts if len(d.variants) != 1 or d.variants[0].is_wanted is False or d.lacking
        ]
        return FleetSheet(
            name=str(fleet.get("name", run.header.id)),
            counts=count_outcomes(verdicts),
            is_simulated=is_simulated(run),
            decided_against=tuple(against[:LINES_MAX]),
            more_against=sum(len(alike.hosts) for alike in against[LINES_MAX:]),
            heat=read_heat(tables),
            drifts=tuple(differing),
            same=tuple(d for d in drifts if d not in differing),
            rounds=tuple(_rounds(run, tables)),
            files=FILES,
            problems=tuple(tables.problems),
        )


def is_simulated(run: Run) -> bool:
    """Say whether no hardware was touched: such a run certifies nothing and is acted on by nobody."""
    return bool(run.header.spec.get("simulated"))


def _against(verdicts: Sequence[HostVerdict]) -> list[Alike]:
    """Return what did not pass, failures first, hosts with the very same findings together."""
    alike: dict[tuple[Outcome, str, tuple[int, ...]], list[HostVerdict]] = {}
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        for verdict in verdicts:
            if verdict.outcome is outcome:
                findings = tuple(id(finding) for finding in verdict.because)
                alike.setdefault((outcome, verdict.state, findings), []).append(verdict)
    return [Alike(hosts=tuple(v.host for v in found), verdict=found[0]) for found in alike.values()]


_ROUNDS = """
WITH tried AS (
  SELECT round, trial, any_value(design) AS design, any_value(hosts) AS hosts, any_value(state) AS state,
         min(t_ns) AS t_ns, max(seconds) AS seconds FROM net GROUP BY round, trial
)
SELECT round, string_agg(DISTINCT design, ', ' ORDER BY design), count(*), sum(len(hosts))::BIGINT,
       count(*) FILTER (state <> 'done'), min(t_ns), max(seconds)
FROM tried WHERE round IS NOT NULL GROUP BY round ORDER BY round
"""


def _rounds(run: Run, tables: FleetTables) -> list[Round]:
    return [
        Round(
            number=int(str(number)),
            designs=str(designs),
            trials=int(str(trials)),
            hosts=int(str(hosts or 0)),
            broken=int(str(broken)),
            begin_s=(int(str(t_ns)) - run.header.started_ns) / 1e9,
            seconds=float(str(seconds or 0)),
        )
        for number, designs, trials, hosts, broken, t_ns, seconds in tables.rows(_ROUNDS)
    ]

"""From the tables of a fleet's record to its findings. No host's own record is opened for it."""

from __future__ import annotations

from collections.abc import Iterator

from burnin.fleet.common_cause import judge_common_causes, point_to_causes
from burnin.fleet.controls import prove_fleet_rules
from burnin.fleet.digest_vote import judge_digest_vote
from burnin.fleet.drift import judge_drift
from burnin.fleet.fleet_json import fleet_from_json
from burnin.fleet.host import Fleet
from burnin.fleet.host_rule import judge_hosts
from burnin.fleet.left_out import judge_no_network
from burnin.fleet.network.network_rule import judge_network
from burnin.fleet.network.stage import read_outcome
from burnin.fleet.outliers import judge_outliers
from burnin.fleet.stage_judging import judge_stages
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.fleet_tables import FleetTables
from reports.run import Run

_ORDER = ("common-cause", "network", "fleet-digest", "fleet-outlier", "fleet-drift", "host")
_HOST = ("host", "state", "outcome", "run", "detail")
_FINDING = ("host", "rule", "subject", "outcome", "observed", "next_step", "is_explained")


def judge_fleet(run: Run) -> list[Finding]:
    """Judge a recorded run of a fleet from its record alone; who matters most stands first."""
    fleet = fleet_of(run)
    network = read_outcome(run, fleet)
    with FleetTables(run) as tables:
        count = max(len(fleet.hosts), int(str(tables.rows("SELECT count(*) FROM host")[0][0])))
        found = [
            *judge_digest_vote(tables, fleet=fleet.name),
            *judge_outliers(tables, fleet=fleet.name),
            *judge_drift(tables, fleet.expected_versions, fleet=fleet.name),
            *_simulated(run, fleet),
            *(
                judge_network(network, fleet=fleet.name)
                if network is not None
                else judge_no_network(run, fleet)
            ),
            *judge_stages(run, fleet),
        ]
        causes = judge_common_causes(tables, found, hosts=count)
        hosts = list(_judge_hosts(tables, fleet, count))
        controls = prove_fleet_rules(tables, found, fleet=fleet.name)
    return sorted([*causes, *point_to_causes([*found, *hosts], causes), *controls], key=_weight)


judge_run = judge_fleet  # what ``overproof judge`` calls


def fleet_of(run: Run) -> Fleet:
    """Return the fleet that was to run; without hosts where the record does not say."""
    told: JsonObject = run.header.spec.get("fleet") or next((e.data for e in run.events_of("fleet")), {})
    if not isinstance(told, dict) or "hosts" not in told:
        return Fleet(name=run.header.id, hosts=())
    return fleet_from_json(told)


def _simulated(run: Run, fleet: Fleet) -> Iterator[Finding]:
    if run.header.spec.get("simulated"):
        yield Finding(
            rule="simulated",
            subject=f"fleet:{fleet.name}",
            outcome=None,
            observed="SIMULATED: no such hosts exist and nothing was measured",
            expected="shown with every verdict of a rehearsal",
        )


def _judge_hosts(tables: FleetTables, fleet: Fleet, count: int) -> Iterator[Finding]:
    """Name each host that did not pass; those that did are one finding."""
    query = (
        f"SELECT {', '.join(_HOST)} FROM host WHERE state <> 'finished' OR outcome <> 'pass' ORDER BY host"  # noqa: S608
    )
    rows = [dict(zip(_HOST, row, strict=True)) for row in tables.rows(query)]
    query = (
        f"SELECT {', '.join(_FINDING)} FROM host_finding "  # noqa: S608
        "ORDER BY host, coalesce(is_explained, false), outcome = 'fail' DESC, rule, subject"
    )
    told = [dict(zip(_FINDING, row, strict=True)) for row in tables.rows(query)]
    rules: dict[str, list[str]] = {}
    for entry in told:
        if entry["outcome"] == "fail" and not entry["is_explained"]:
            rules.setdefault(str(entry["host"]), []).append(str(entry["rule"]))
    for row, finding in zip(rows, judge_hosts(rows, told), strict=True):
        host, state = str(row["host"]), str(row["state"])
        causes = [f"host {state}"] if state != "finished" else sorted(set(rules.get(host, ())))
        finding.evidence.update({"hosts": [host], "rules": causes, "state": state})
        yield finding
    yield from _never_reported(tables, fleet)
    passed = tables.rows("SELECT count(*) FROM host WHERE state = 'finished' AND outcome = 'pass'")[0][0]
    if passed:
        yield Finding(
            rule="host",
            subject=f"fleet:{fleet.name}",
            outcome=Outcome.PASS,
            observed=f"{passed:,} of {count:,} hosts finished their own burn-in and passed it",
            expected="finishes its own burn-in and passes it",
        )


def _never_reported(tables: FleetTables, fleet: Fleet) -> Iterator[Finding]:
    known = {str(row[0]) for row in tables.rows("SELECT host FROM host")}
    for host in fleet.hosts:
        if host.name not in known:
            yield Finding(
                rule="host",
                subject=f"host:{host.name}",
                outcome=Outcome.INCONCLUSIVE,
                observed="never reported: the record says nothing of it",
                expected="finishes its own burn-in and passes it",
                evidence={"hosts": [host.name], "rules": [], "state": "never reported"},
                next_step="go on with --resume",
            )


def _weight(finding: Finding) -> tuple[int, int, float]:
    severity = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}
    order = _ORDER.index(finding.rule) if finding.rule in _ORDER else len(_ORDER)
    outcome = 3 if finding.outcome is None else severity[finding.outcome]
    # The network stage has its own order: what more hangs on goes first.
    severity_of = float(finding.evidence.get("severity", 0.0)) if finding.rule == "fleet-outlier" else 0.0
    return outcome, order, -severity_of

"""The rule on drift: what hosts and parts run on, against what was wanted, and told against the majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.finding import Finding
from probes.outcome import Outcome
from reports.fleet_drift import Drift, read_drift
from reports.fleet_tables import FleetTables

_NAMED = 6


def judge_drift(tables: FleetTables, wanted: Mapping[str, str], *, fleet: str) -> list[Finding]:
    """Fail hosts that lack what the fleet file wants; of other differences tell who is in the minority.

    A difference alone is no fault: whoever runs on other versions is compared with its like, and where that
    is not possible, the rules on digests and outliers are undecided about it.
    """
    drifts = read_drift(tables, wanted)
    findings = []
    for drift in drifts:
        findings += _against_wanted(drift)
        findings += _against_majority(drift, fleet)
    same = sum(1 for drift in drifts if len(drift.variants) == 1)
    observed = f"{len(drifts)} fingerprints, {same} of them the same wherever they were read"
    return [*findings, _finding(f"fleet:{fleet}", Outcome.PASS if drifts else None, observed, [], "")]


def _against_wanted(drift: Drift) -> list[Finding]:
    if drift.wanted is None:
        return []
    findings = []
    for variant in drift.variants:
        if not variant.is_wanted:
            observed = f"{drift.label} is {variant.value} on {_count(variant.hosts)}"
            step = f"bring {drift.key} to {drift.wanted}, then run it again"
            findings.append(_wanted(drift, Outcome.FAIL, observed, variant.hosts, step))
    if drift.lacking:
        observed = f"{drift.label} could not be read on {_count(drift.lacking)}"
        step = "see why it is not told there: the reading may need root"
        findings.append(_wanted(drift, Outcome.INCONCLUSIVE, observed, drift.lacking, step))
    return findings


def _wanted(drift: Drift, outcome: Outcome, observed: str, hosts: Sequence[str], step: str) -> Finding:
    subject = f"host:{hosts[0]}" if len(hosts) == 1 else f"hosts:{len(hosts)} with another {drift.key}"
    return _finding(subject, outcome, observed, hosts, step, expected=f"{drift.key} {drift.wanted}")


def _against_majority(drift: Drift, fleet: str) -> list[Finding]:
    if len(drift.variants) < 2 or drift.wanted is not None:
        return []
    subject = f"fleet:{fleet}/{drift.key}"
    if not drift.has_majority:
        values = "; ".join(f"{v.value} on {_count(v.hosts)}" for v in drift.variants[:_NAMED])
        observed = f"{drift.label}: a tie, no value is that of most: {values}"
    else:
        most, *rest = drift.variants
        values = "; ".join(f"{v.value} on {_count(v.hosts)}" for v in rest[:_NAMED])
        observed = f"{drift.label}: {values}; most have {most.value} ({len(most.hosts)} hosts)"
    return [
        _finding(subject, None, observed, [], "state the wanted value in the fleet file to have it judged")
    ]


def _count(hosts: Sequence[str]) -> str:
    names = ", ".join(hosts[:_NAMED])
    return f"{names} and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else names


def _finding(
    subject: str,
    outcome: Outcome | None,
    observed: str,
    hosts: Sequence[str],
    step: str,
    *,
    expected: str = "what the fleet file wants; differences from the majority are told",
) -> Finding:
    return Finding(
        rule="fleet-drift",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=expected,
        evidence={"hosts": list(hosts)} if hosts else {},
        next_step=step if outcome is not Outcome.PASS else "",
    )

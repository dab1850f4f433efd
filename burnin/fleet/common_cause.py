"""Common causes: what befalls many hosts at once, or most of a rack, is named once, and is no bad host.

A rule that fails on more than a tenth of the hosts speaks about the fleet, its software or our own rule. One
that fails on most hosts of a rack, PDU or switch, and hardly elsewhere, speaks about that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from probes.finding import Finding
from probes.outcome import Outcome
from reports.fleet_tables import PLACES, FleetTables

Members = Mapping[str, Mapping[str, Sequence[str]]]  # kind of place -> name -> hosts
RULE_SHARE_MAX = 0.1  # of the hosts: design, "automation that acts on a verdict"
PLACE_HOSTS_MIN, PLACE_SHARE_MIN, ELSEWHERE_SHARE_MAX = 3, 0.5, 0.25
_STEPS = {
    "rack": "look at what the rack shares: cooling, power, its switch",
    "pdu": "look at the PDU: load, phases, its feed",
    "hall": "look at the hall's cooling and power",
    "switch": "look at the switch: ports, firmware, its power",
    "nvlink_domain": "look at the NVSwitch trays and the fabric manager of this domain",
}
_FAILED = """
SELECT rule, list(DISTINCT host ORDER BY host) FROM host_finding
WHERE outcome = 'fail' AND NOT coalesce(is_explained, false) GROUP BY rule ORDER BY rule
"""
_GONE = """
SELECT state, list(host ORDER BY host) FROM host WHERE state IN ('lost', 'unreachable') GROUP BY state
"""


def judge_common_causes(tables: FleetTables, findings: Sequence[Finding], *, hosts: int) -> list[Finding]:
    """Name each common cause: the places first, then the rules."""
    bad = {rule: (Outcome.FAIL, who) for rule, who in _lists(tables, _FAILED).items()}
    bad |= {f"host {state}": (Outcome.INCONCLUSIVE, who) for state, who in _lists(tables, _GONE).items()}
    bad |= {rule: (Outcome.FAIL, sorted(who)) for rule, who in _failed_in_fleet(findings).items()}
    members = _members(tables)
    causes = []
    for rule, (outcome, who) in sorted(bad.items()):
        if len(who) > 1 and len(who) > RULE_SHARE_MAX * hosts:
            causes.append(_rule_cause(rule, outcome, who, hosts))
        causes += _place_causes(rule, outcome, who, hosts, members)
    return sorted(causes, key=lambda f: f.subject.startswith("rule:"))


def point_to_causes(findings: Sequence[Finding], causes: Sequence[Finding]) -> list[Finding]:
    """Let each finding about a host that a common cause explains wholly point to it."""
    explained: dict[tuple[str, str], Finding] = {}
    for cause in reversed(causes):  # so that a place goes before a rule
        for host in cause.evidence["hosts"]:
            explained[host, str(cause.evidence["rule"])] = cause
    return [_point(finding, explained) for finding in findings]


def _point(finding: Finding, explained: Mapping[tuple[str, str], Finding]) -> Finding:
    hosts, rules = finding.evidence.get("hosts", ()), finding.evidence.get("rules", (finding.rule,))
    causes = [explained.get((str(hosts[0]), str(rule))) for rule in rules] if len(hosts) == 1 else []
    if not causes or None in causes or finding.outcome in (None, Outcome.PASS):
        return finding
    cause = next(cause for cause in causes if cause is not None)
    because = {"rule": cause.rule, "subject": cause.subject}
    return replace(finding, evidence=finding.evidence | {"because": because})


def _lists(tables: FleetTables, query: str) -> dict[str, list[str]]:
    rows = tables.rows(query)
    return {str(name): [str(host) for host in who] for name, who in rows if isinstance(who, list)}


def _failed_in_fleet(findings: Sequence[Finding]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in findings:
        if finding.outcome is Outcome.FAIL and finding.rule != "host":
            found.setdefault(finding.rule, set()).update(finding.evidence.get("hosts", ()))
    return found


def _members(tables: FleetTables) -> dict[str, dict[str, list[str]]]:
    """Return the hosts of each place, by kind of place."""
    found = {}
    for kind in PLACES:
        of_kind = f"WHERE {kind} IS NOT NULL GROUP BY {kind}"
        found[kind] = _lists(tables, f"SELECT {kind}, list(host ORDER BY host) FROM host {of_kind}")  # noqa: S608
    return found


def _rule_cause(rule: str, outcome: Outcome, who: Sequence[str], hosts: int) -> Finding:
    return Finding(
        rule="common-cause",
        subject=f"rule:{rule}",
        outcome=outcome,
        observed=f"{rule} on {len(who)} of {hosts} hosts",
        expected=f"no rule fails on more than {RULE_SHARE_MAX:.0%} of the hosts",
        evidence={"rule": rule, "hosts": list(who), "stops_acting": True},
        next_step="see what they have in common (drift table), and whether the rule is right for this fleet; "
        "nobody is drained until then",
    )


def _place_causes(
    rule: str, outcome: Outcome, who: Sequence[str], hosts: int, members: Members
) -> list[Finding]:
    """Name the fewest places that explain who fails: first the one with most of those left."""
    left, causes = set(who), []
    while counts := {
        (kind, name): len(left & set(there))
        for kind, places in members.items()
        for name, there in places.items()
        if _is_bad(left, there, who, hosts)
    }:
        most = max(counts.values())
        same = [key for key, count in counts.items() if count == most]
        kind, name = min(same, key=lambda key: (len(members[key[0]][key[1]]), PLACES.index(key[0])))
        there = members[kind][name]
        others = [f"{k} {n}" for k, n in same if (k, n) != (kind, name) and set(members[k][n]) == set(there)]
        inside = sorted(left & set(there))
        causes.append(_place_cause(rule, outcome, (kind, name), inside, len(there), others))
        left -= set(there)
    return causes


def _is_bad(left: set[str], there: Sequence[str], who: Sequence[str], hosts: int) -> bool:
    """Say whether most hosts of a place fail, and far fewer of those elsewhere."""
    inside, elsewhere = len(left & set(there)), hosts - len(there)
    if inside < PLACE_HOSTS_MIN or inside < PLACE_SHARE_MIN * len(there) or not elsewhere:
        return False
    outside = len(set(who) - set(there))
    return outside / elsewhere <= ELSEWHERE_SHARE_MAX * inside / len(there)


def _place_cause(
    rule: str,
    outcome: Outcome,
    place: tuple[str, str],
    inside: Sequence[str],
    members: int,
    others: Sequence[str],
) -> Finding:
    kind, name = place
    same = f" (the same hosts: {', '.join(others)})" if others else ""
    where = f"{len(inside)} of the {members} hosts of {kind} {name}{same}"
    return Finding(
        rule="common-cause",
        subject=f"{kind}:{name}",
        outcome=outcome,
        observed=f"{rule} on {where}, and hardly elsewhere",
        expected="hosts fail one by one, not by the place where they stand",
        evidence={"rule": rule, "hosts": list(inside), "place": kind},
        next_step=_STEPS[kind],
    )

"""What each host of a fleet came to, once its own burn-in and what the fleet says of it are put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probes.finding import Finding
from probes.outcome import Outcome, worst
from reports.fleet_tables import FleetTables
from reports.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVerdict:
    """One host, what it came to, and the findings that made it so."""

    host: str
    outcome: Outcome
    state: str
    run: str  # folder of its own burn-in within the fleet's; empty: it has none
    because: tuple[Finding, ...]  # the gravest first; empty: nothing speaks against it


def read_verdicts(
    run: Run, tables: FleetTables, findings: Sequence[Finding] | None = None
) -> list[HostVerdict]:
    """Return the verdict of every host that was to run, by name.

    A host passes only in a fleet whose run came to its end: before that nobody has compared it with others.
    """
    judged = run.findings if findings is None else findings  # of the record, unless judged anew
    against: dict[str, list[Finding]] = {}
    for finding in judged:
        if finding.counts and finding.outcome is not Outcome.PASS:
            for host in finding.evidence.get("hosts", ()):
                against.setdefault(str(host), []).append(finding)
    rows = tables.rows("SELECT host, coalesce(state, ''), outcome, coalesce(run, '') FROM host")
    known = {str(host): (str(state), str(outcome), str(folder)) for host, state, outcome, folder in rows}
    names = sorted({*known, *_names(run)})
    is_whole = run.state == "finished" and bool(judged)
    return [_verdict(name, known.get(name), against.get(name, []), is_whole=is_whole) for name in names]


def _names(run: Run) -> Iterable[str]:
    told = run.header.spec.get("fleet") or next((e.data for e in run.events_of("fleet")), {})
    hosts = told.get("hosts") if isinstance(told, dict) else None
    return [str(host["name"]) for host in hosts or () if isinstance(host, dict) and "name" in host]


def _verdict(
    name: str, row: tuple[str, str, str] | None, against: Sequence[Finding], *, is_whole: bool
) -> HostVerdict:
    state, own, folder = row or ("never reported", "inconclusive", "")
    known = {outcome.value: outcome for outcome in Outcome}
    outcome = worst([known.get(own, Outcome.INCONCLUSIVE), *(f.outcome for f in against if f.outcome)])
    if outcome is Outcome.PASS and not (is_whole and state == "finished"):
        outcome = Outcome.INCONCLUSIVE
    ranked = sorted(against, key=lambda f: (f.outcome is not Outcome.FAIL, "because" in f.evidence))
    return HostVerdict(host=name, outcome=outcome, state=state, run=folder, because=tuple(ranked))


def count_outcomes(verdicts: Sequence[HostVerdict]) -> dict[str, int]:
    """Return how many hosts came to what, the states of those that did not finish apart."""
    states = Counter(v.state for v in verdicts if v.state != "finished")
    counts = Counter(v.outcome for v in verdicts)
    found = {"hosts": len(verdicts)} | {
        str(o): counts[o] for o in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
    }
    return found | dict(sorted(states.items()))

"""A finding: what one rule concluded about one subject, with its evidence and what to do next."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase

from probes.json_types import JsonObject
from probes.outcome import Outcome, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A person's decision that a finding shall not count until a date. It stands in the verdict."""

    rule: str  # shell pattern over rule names
    subject: str  # shell pattern over subjects
    owner: str
    reason: str
    expires: str  # ISO date, the last day on which the waiver holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one rule concluded about one subject.

    Subjects: ``gpu:<uuid>``, ``device:<name>``, ``host:<name>``, ``link:<a>-<b>``, ``endpoint:<url>``,
    ``slo:<name>``, ``fault:<name>``, ``client:<name>``, ``run:<id>``.
    """

    rule: str
    subject: str
    outcome: Outcome | None  # None: not applicable on this platform; shown, never merged
    observed: str
    expected: str
    unit: str = ""
    evidence: JsonObject = field(default_factory=dict)
    next_step: str = ""
    waiver: Waiver | None = None  # None: nobody has waived it

    @property
    def counts(self) -> bool:
        """Whether this finding takes part in the verdict."""
        return self.outcome is not None and self.waiver is None


def verdict(findings: Iterable[Finding]) -> Outcome:
    """Merge findings into one outcome; not applicable and waived ones do not count."""
    return worst(f.outcome for f in findings if f.outcome is not None and f.counts)


def apply_waivers(
    findings: Sequence[Finding], waivers: Sequence[Waiver], *, today: datetime.date
) -> list[Finding]:
    """Mark the findings that a waiver in force covers. Only what did not pass can be waived."""
    in_force = [w for w in waivers if datetime.date.fromisoformat(w.expires) >= today]
    return [_waive(finding, in_force) for finding in findings]


def _waive(finding: Finding, waivers: Sequence[Waiver]) -> Finding:
    if finding.outcome in (None, Outcome.PASS):
        return finding
    for waiver in waivers:
        if fnmatchcase(finding.rule, waiver.rule) and fnmatchcase(finding.subject, waiver.subject):
            return replace(finding, waiver=waiver)
    return finding


def finding_to_json(finding: Finding) -> JsonObject:
    """Return the finding as plain JSON values, the form it has in ``findings.ndjson``."""
    return asdict(finding) | {"outcome": finding.outcome and finding.outcome.value}


def finding_from_json(data: JsonObject) -> Finding:
    """Read a finding back; unknown keys of a newer version are dropped."""
    known = {name: data[name] for name in Finding.__dataclass_fields__ if name in data}
    outcome, waiver = known.get("outcome"), known.get("waiver")
    known["outcome"] = Outcome(outcome) if outcome is not None else None
    known["waiver"] = Waiver(**waiver) if waiver is not None else None
    return Finding(**known)

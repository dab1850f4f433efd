"""The subjects of a run with the worst that was found of each: the first thing that a reader asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.finding import Finding
from probes.outcome import Outcome, worst
from reports.verdict import is_control

SUBJECTS_MAX = 16
_ORDER = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRow:
    """One subject, such as a device, a host, a promise or a replica."""

    name: str
    outcome: Outcome
    findings: int
    against: int  # of them did not pass


def subject_rows(findings: Sequence[Finding]) -> list[SubjectRow]:
    """Return the subjects of the findings that count, the worst first; not those that prove detectors."""
    by_subject: dict[str, list[Outcome]] = {}
    for finding in findings:
        if finding.counts and finding.outcome is not None and not _is_about_us(finding):
            by_subject.setdefault(_name(finding.subject), []).append(finding.outcome)
    rows = [
        SubjectRow(
            name=name,
            outcome=worst(outcomes),
            findings=len(outcomes),
            against=sum(outcome is not Outcome.PASS for outcome in outcomes),
        )
        for name, outcomes in by_subject.items()
    ]
    return sorted(rows, key=lambda row: _ORDER[row.outcome])


def _is_about_us(finding: Finding) -> bool:
    """Say whether a finding proves a detector, or that the run itself was whole."""
    return is_control(finding) or (finding.subject.startswith("run:") and finding.outcome is Outcome.PASS)


def _name(subject: str) -> str:
    """Return what a finding is about, without its phase or the part of it."""
    name = subject.partition("@")[0]
    return name.partition("/")[0] if name.startswith("host:") else name

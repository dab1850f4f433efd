"""What a reader is told first: the outcome in words, the findings that decided, and what did not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run

# A rule with this in its name says whether detectors saw the faults that were seeded to prove them.
CONTROL_RULE = "control"
COMPLETENESS_RULE = "completeness"
KIND_TITLES = {
    "burnin": "Burn-in",
    "fleet": "Burn-in of a fleet",
    "load": "Load test",
    "gameday": "Game day",
    "calibration": "Calibration",
    "findmax": "Search for the highest rate",
}
IN_GAMEDAY = "load.in_gameday"  # this load is the traffic of a game day, which judges its promises by phases
SIGNS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.INCONCLUSIVE: "?", None: "–"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The findings of a run, sorted by the part they play in its outcome."""

    outcome: Outcome
    sentence: str
    failed: tuple[Finding, ...]
    undecided: tuple[Finding, ...]
    passed: tuple[Finding, ...]
    waived: tuple[Finding, ...]
    not_applicable: tuple[Finding, ...]

    @property
    def deciding(self) -> tuple[Finding, ...]:
        """What caused the outcome: the failures, else what could not be decided, else all that passed."""
        return self.failed or self.undecided or self.passed

    @property
    def controls(self) -> tuple[Finding, ...]:
        """The positive controls among all findings, whatever they concluded."""
        every = (*self.failed, *self.undecided, *self.passed, *self.waived, *self.not_applicable)
        return tuple(finding for finding in every if is_control(finding))


def sum_up(run: Run) -> Verdict:
    """Sort the findings of a run by the part they play; the run's own outcome is never softened."""
    # What another finding explains stands behind those that stand for themselves; that a run was cut short
    # explains what it lacks, and stands before them all.
    counted = sorted(
        (f for f in run.findings if f.counts),
        key=lambda f: (f.rule != COMPLETENESS_RULE or f.outcome is Outcome.PASS, "because" in f.evidence),
    )
    failed = _with(counted, Outcome.FAIL)
    undecided = _with(counted, Outcome.INCONCLUSIVE)
    passed = _with(counted, Outcome.PASS)
    return Verdict(
        outcome=run.outcome,
        sentence=_sentence(run, len(failed), len(undecided), len(passed)),
        failed=failed,
        undecided=undecided,
        passed=passed,
        waived=tuple(f for f in run.findings if f.waiver is not None),
        not_applicable=tuple(f for f in run.findings if f.outcome is None and f.waiver is None),
    )


def title_of(run: Run) -> str:
    """Return what kind of run this is, as a headline has it."""
    if run.events_of(IN_GAMEDAY):
        return "Traffic of a game day (judged there; here only its client)"
    return KIND_TITLES.get(run.header.kind, run.header.kind)


def _with(findings: Sequence[Finding], outcome: Outcome) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.outcome is outcome)


def is_control(finding: Finding) -> bool:
    """Say whether a finding is about a detector that a seeded fault was to prove."""
    return CONTROL_RULE in finding.rule


def _sentence(run: Run, failed: int, undecided: int, passed: int) -> str:
    total = failed + undecided + passed
    if run.outcome is Outcome.FAIL:
        return f"It did not hold: {failed} of {_findings(total)} failed."
    if not total:
        return "Nothing was judged: the record holds no finding that counts."
    if undecided:
        return f"It could not be decided: {undecided} of {_findings(total)} lack the evidence, none failed."
    if run.outcome is Outcome.INCONCLUSIVE:
        return f"It could not be decided: the run is {run.state}, so what passed does not show the whole."
    return f"It held: all {_findings(total)} that count passed, none is missing its evidence."


def _findings(count: int) -> str:
    return f"{count} finding" if count == 1 else f"{count} findings"


def duration_s(run: Run) -> float | None:
    """Return the time from the start to the last thing on the timeline; None: nothing is on it."""
    if not run.events:
        return None
    return max(0.0, (run.events[-1].t_ns - run.header.started_ns) / 1e9)


def format_duration(seconds: float | None) -> str:
    """Return a duration as people say it: ``8.4 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

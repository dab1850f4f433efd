"""What of all that really breaks a run has looked for: the published categories, by the rules that judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probes.detectors import detectors
from probes.failure_categories import failure_categories
from probes.finding import Finding
from probes.outcome import Outcome
from reports.gameday_sheet import GAMEDAY
from reports.run import Run

SIGNS_OF_IT, NO_SIGN, UNDECIDED = "signs of it", "no sign", "undecided"
_MARKS = {SIGNS_OF_IT: "✗", NO_SIGN: "✓", UNDECIDED: "?"}
_OUTCOMES = {SIGNS_OF_IT: "fail", NO_SIGN: "pass", UNDECIDED: "inconclusive"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedFor:
    """One category, and the rules that could have found it and came to a conclusion, or could not."""

    category: str
    title: str
    rules: tuple[str, ...]
    word: str  # what they came to together

    @property
    def mark(self) -> str:
        """The mark beside the word."""
        return _MARKS[self.word]

    @property
    def ink(self) -> str:
        """The outcome whose ink the word has."""
        return _OUTCOMES[self.word]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCoverage:
    """Every category, once."""

    looked_for: tuple[LookedFor, ...]
    not_looked_for: tuple[str, ...]  # titles


def read_coverage(run: Run) -> RunCoverage | None:
    """Return what a run looked for; None: its kind declares no rule, or nobody has judged it.

    A game day breaks one thing on purpose: that it was noticed says nothing of what else its rules find.
    """
    job = detectors().jobs.get(run.header.kind)
    if job is None or not run.findings or run.header.kind == GAMEDAY:
        return None
    judged = [finding for finding in run.findings if finding.outcome is not None and finding.waiver is None]
    looked_for, missing = [], []
    for category, title in failure_categories().titles.items():
        about = [finding for finding in judged if category in job.detects.get(finding.rule, {})]
        if about:
            looked_for.append(_looked_for(category, title, about, job.has_found))
        else:
            missing.append(title)
    return RunCoverage(looked_for=tuple(looked_for), not_looked_for=tuple(missing))


def _looked_for(
    category: str, title: str, about: list[Finding], has_found: Callable[[Finding, str], bool]
) -> LookedFor:
    """Sum up what rules said; one that looks for several categories does not say which one it saw."""
    word = UNDECIDED if any(finding.outcome is Outcome.INCONCLUSIVE for finding in about) else NO_SIGN
    if any(has_found(finding, category) for finding in about):
        word = SIGNS_OF_IT
    return LookedFor(
        category=category,
        title=title,
        rules=tuple(dict.fromkeys(finding.rule for finding in about)),
        word=word,
    )

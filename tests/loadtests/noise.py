"""What a machine that does other things as well leaves undecided in a load run, by the run's own findings."""

from __future__ import annotations

from probes.outcome import Outcome
from reports.run import Run

OF_A_BUSY_MACHINE = {"lateness", "client-lag", "client-calibrated"}
TRIES = 3  # of a run whose verdict matters, where it was left open by that alone


def undecided(run: Run) -> set[str]:
    """Return the rules that lack evidence."""
    return {found.rule for found in run.findings if found.outcome is Outcome.INCONCLUSIVE}


def is_left_open_by_noise(run: Run) -> bool:
    """Whether this machine held the client up, nothing else is undecided, and nothing failed."""
    has_failed = any(found.outcome is Outcome.FAIL for found in run.findings)
    return bool(undecided(run)) and undecided(run) <= OF_A_BUSY_MACHINE and not has_failed

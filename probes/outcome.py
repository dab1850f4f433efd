"""What a rule concluded, and how conclusions merge."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Outcome(str, Enum):
    """What a rule concluded; ordered ``PASS < INCONCLUSIVE < FAIL`` when merged."""

    PASS = "pass"  # noqa: S105  (a verdict, not a password)
    INCONCLUSIVE = "inconclusive"  # it could not be measured; never counts as a pass
    FAIL = "fail"

    def __str__(self) -> str:
        return self.name


_SEVERITY = {Outcome.PASS: 0, Outcome.INCONCLUSIVE: 1, Outcome.FAIL: 2}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the most severe outcome; of none at all, INCONCLUSIVE."""
    return max(outcomes, key=_SEVERITY.__getitem__, default=Outcome.INCONCLUSIVE)

"""What a tally says of a promise: the chance of it at the limit, for and against, dependence accounted for.

An error of either kind is at most as frequent as stated. PASS has to hold for the breaches that may have
been, FAIL for those that were for certain.

Requests that *failed* are facts of this run, each by itself: that they came together, as in an outage, is no
excuse, so for FAIL they count as independent. Slow ones may be slow together by chance, and are not.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.outcome import Outcome
from probes.promise import Slo
from probes.sequential import chance_of_so_few_ever, chance_of_so_many_ever
from probes.share_test import INDEPENDENT_MIN, chance_of_so_few, chance_of_so_many
from probes.tally import Tally

# Of the doubt that a FAIL is allowed, this part goes to single halves and quarters of a run: a server that
# dies in the middle has one long outage, which taken with the rest looks like correlation.
PARTS_DOUBT = 0.1
_PARTS = ((0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4))  # in quarters of the run
_PART_MIN = 15  # requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Chances at the limit of the promise: of so few breaches (PASS), and of so many (FAIL)."""

    few: float
    many: float
    inflation: float  # how many values say as much as one independent one
    independent: float  # as how many values the run counts

    def outcome(self, *, confidence: float, many: float | None = None) -> Outcome:
        """Decide; ``many`` is the chance as it counts among several promises (Holm)."""
        doubt = 1 - confidence
        if self.few <= doubt:
            return Outcome.PASS
        return Outcome.FAIL if (self.many if many is None else many) <= doubt else Outcome.INCONCLUSIVE


def weigh(slo: Slo, tally: Tally, *, is_peeked: bool = False, is_by_load: bool = False) -> Evidence:
    """Return what a tally says.

    ``is_peeked``: it was looked at before, and might have been stopped on. ``is_by_load``: it speaks for a
    longer time under this load, so whether load made requests slow counts before they PASS.
    """
    inflation = tally.inflation(slo.allowed)
    passing = max(inflation, tally.inflation_by_load(slo.allowed)) if is_by_load else inflation
    total = tally.total / passing
    few_of, many_of = (
        (chance_of_so_few_ever, chance_of_so_many_ever)
        if is_peeked
        else (chance_of_so_few, chance_of_so_many)
    )
    few, weight = 1.0, 1 / inflation
    if passing == 1 or total >= INDEPENDENT_MIN:
        few = few_of(tally.possible / passing, total, allowed=slo.allowed)
    if inflation > 1 and tally.total * weight < INDEPENDENT_MIN:
        weight /= (
            2  # the correlation itself is hardly known: nothing passes, what fails has to fail by half of it
        )
    many = many_of(tally.certain * weight, tally.total * weight, allowed=slo.allowed) / (1 - PARTS_DOUBT)
    many = min(1.0, many, many_of(tally.failed, len(tally.scores), allowed=slo.allowed) / (1 - PARTS_DOUBT))
    if not is_peeked:
        many = min(many, _chance_of_a_part(slo, tally) / PARTS_DOUBT)
    return Evidence(few=few, many=many, inflation=passing, independent=total)


def _chance_of_a_part(slo: Slo, tally: Tally) -> float:
    """Return the chance of the worst half or quarter, times their number."""
    count = len(tally.total_each)
    chances = [1.0]
    for first, last in _PARTS:
        part = tally.part(count * first // 4, count * last // 4)
        if len(part.total_each) < _PART_MIN or part.certain <= 2 * slo.allowed * part.total:
            continue
        inflation = part.inflation(slo.allowed)
        if inflation == 1 or part.total / inflation >= INDEPENDENT_MIN:
            chances.append(
                chance_of_so_many(part.certain / inflation, part.total / inflation, allowed=slo.allowed)
            )
    return min(1.0, min(chances) * len(_PARTS))

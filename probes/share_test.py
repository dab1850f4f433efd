"""What a number of breaches says of their share in the long run, at a stated confidence.

Counts may be fractions: a run whose neighbours resemble each other counts for as many independent values as
``probes.dependence`` finds. The binomial tail is continued between whole numbers by the incomplete beta
function, so that nothing is lost to rounding.
"""

from __future__ import annotations

from probes.incomplete_beta import incomplete_beta
from probes.outcome import Outcome

# Where neighbours correlate, that itself has to be known: below so many independent values it is not.
INDEPENDENT_MIN = 15


def chance_of_so_few(bad: float, total: float, *, allowed: float) -> float:
    """Return how probable so few breaches are where exactly the allowed share breaks in the long run."""
    if total <= 0:
        return 1.0
    return 1.0 if bad >= total else incomplete_beta(1 - allowed, total - bad, bad + 1)


def chance_of_so_many(bad: float, total: float, *, allowed: float) -> float:
    """Return how probable so many breaches are where exactly the allowed share breaks in the long run."""
    if bad <= 0 or total <= 0:
        return 1.0
    return incomplete_beta(allowed, bad, max(0.0, total - bad) + 1)


def decide(bad: int, total: int, *, objective: float, confidence: float) -> Outcome:
    """Decide over independent values whether the share of bad ones is below ``1 - objective``, or above.

    Exact binomial test on either side, each wrong with probability at most ``1 - confidence``.
    """
    allowed, doubt = 1 - objective, 1 - confidence
    if chance_of_so_few(bad, total, allowed=allowed) <= doubt:
        return Outcome.PASS
    if chance_of_so_many(bad, total, allowed=allowed) <= doubt:
        return Outcome.FAIL
    return Outcome.INCONCLUSIVE


def holm(chances: list[float]) -> list[float]:
    """Return each chance as it counts among several, so that with all of them true one is rarely denied.

    Holm (1979): the smallest counts as many times as there are, the next one time less. Whatever depends on
    whatever else.
    """
    found = [1.0] * len(chances)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        highest = max(highest, min(1.0, chances[index] * (len(chances) - rank)))
        found[index] = highest
    return found

"""How many requests a verdict takes: told before the run, and told again when it was not enough.

Told for a truth that lies 20 % from its limit, on either side. How many breaches that makes depends on the
latencies: an exponential tail is assumed, as queues have it. Most services have a steeper one, and decide
sooner. Where nothing but a share is promised (goodput), it is told for half and for twice as many breaches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from probes.evidence import PARTS_DOUBT
from probes.promise import GOODPUT, Slo
from probes.tally import Sums

AWAY = 0.2  # how far the truth is from the limit
POWER = 0.95  # how often the run then decides
_RESERVE = 1.35  # of the normal approximation, and of a correlation that is itself estimated
_PEEKING = 1.8  # how much longer tests take that may be looked at; docs/studies/load-verdicts.md
CORRELATIONS = (0.0, 0.5, 0.9)  # of neighbours, for which it is told beforehand


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Requests that one promise needs."""

    slo: str
    at_least: int  # with not one breach among independent requests
    decides: int  # where the truth is 20 % away, and requests are independent


def samples_needed(objective: float, confidence: float) -> int:
    """Return how many samples pass when not one of them is bad: ``objective ** n <= 1 - confidence``."""
    return math.ceil(math.log(1 - confidence) / math.log(objective))


def bad_shares_away(slo: Slo) -> tuple[float, float]:
    """Return the share of breaches where the truth is 20 % better than the limit, and 20 % worse."""
    if slo.metric == GOODPUT or slo.window is not None:
        return slo.allowed / 2, min(0.99, slo.allowed * 2)
    return slo.allowed ** (1 / (1 - AWAY)), slo.allowed ** (1 / (1 + AWAY))


def requests_needed(slo: Slo, *, inflation: float = 1.0, promises: int = 1, is_peeked: bool = False) -> int:
    """Return how many requests (or stretches) decide in 95 % of runs where the truth is 20 % away.

    ``inflation`` is that of an earlier run, or of correlated neighbours; of ``promises`` each weighs less in
    a FAIL (Holm).
    """
    doubt = 1 - slo.confidence
    better, worse = bad_shares_away(slo)
    count = max(
        _normal_size(slo.allowed, better, doubt=doubt),
        _normal_size(slo.allowed, worse, doubt=doubt * (1 - PARTS_DOUBT) / promises),
        samples_needed(1 - slo.allowed, slo.confidence),
    )
    return math.ceil(count * inflation * _RESERVE * (_PEEKING if is_peeked else 1))


def _normal_size(allowed: float, truth: float, *, doubt: float) -> float:
    normal = NormalDist()
    reach = normal.inv_cdf(1 - doubt) * math.sqrt(allowed * (1 - allowed))
    reach += normal.inv_cdf(POWER) * math.sqrt(truth * (1 - truth))
    return (reach / (truth - allowed)) ** 2


def requests_left(slo: Slo, sums: Sums, inflation: float) -> int | None:
    """Return how many more requests decide if they go on as so far; None: the truth lies at the objective."""
    if not sums.total:
        return None
    seen = min(max(sums.possible / sums.total, 1e-6), 1 - 1e-6)
    if abs(seen - slo.allowed) < 0.1 * slo.allowed:
        return None
    values_each = sums.total / sums.requests
    count = _normal_size(slo.allowed, seen, doubt=1 - slo.confidence)
    count = max(count, samples_needed(1 - slo.allowed, slo.confidence)) * inflation * _RESERVE
    return max(0, math.ceil((count - sums.total) / values_each))

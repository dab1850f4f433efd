"""Tests and intervals that stay valid under peeking: look as often as you like, stop when you like.

A fixed test that is repeated after every request errs ten times as often as it says. Here a mixture of
likelihood ratios (a beta prior over the share, cut at what is allowed) is a bet that gains only where the
promise is better kept, or worse broken, than at its limit; at the limit it grows twentyfold at any time with
probability at most 1/20 (Ville). Counts may be fractions, as in ``probes.share_test``.
"""

from __future__ import annotations

import math

from probes.incomplete_beta import incomplete_beta


def chance_of_so_few_ever(bad: float, total: float, *, allowed: float) -> float:
    """Return the most probable that so few breaches are at any look where the allowed share breaks."""
    return _chance(bad, total, allowed=allowed, is_below=True)


def chance_of_so_many_ever(bad: float, total: float, *, allowed: float) -> float:
    """Return the most probable that so many breaches are at any look where the allowed share breaks."""
    return _chance(bad, total, allowed=allowed, is_below=False)


def _chance(bad: float, total: float, *, allowed: float, is_below: bool) -> float:
    if total <= 0:
        return 1.0
    a, b = 1.0, (1 - allowed) / allowed  # weighs as much as it takes to expect one breach
    gain = _log_part(allowed, a + bad, b + total - bad, is_below=is_below)
    gain -= _log_part(allowed, a, b, is_below=is_below)
    gain -= bad * math.log(allowed) + (total - bad) * math.log1p(-allowed)
    return min(1.0, math.exp(-gain)) if gain > 0 else 1.0


def _log_part(x: float, a: float, b: float, *, is_below: bool) -> float:
    """Return the logarithm of the beta integral below ``x``, or above it."""
    part = incomplete_beta(x, a, b) if is_below else incomplete_beta(1 - x, b, a)
    return _log_beta(a, b) + math.log(max(part, 1e-300))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def share_interval(bad: float, total: float, *, confidence: float) -> tuple[float, float]:
    """Return an interval for the share of breaches that holds at all looks together with this confidence."""
    if total <= 0:
        return 0.0, 1.0
    mixture = _log_beta(0.5 + bad, 0.5 + total - bad) - _log_beta(0.5, 0.5)
    limit = mixture + math.log(1 - confidence)  # shares whose likelihood is above it are not excluded

    def is_excluded(share: float) -> bool:
        return bad * math.log(share) + (total - bad) * math.log1p(-share) < limit

    middle = min(max(bad / total, 1e-12), 1 - 1e-12)
    return (
        0.0 if not is_excluded(1e-12) else _edge(1e-12, middle, is_excluded),
        1.0 if not is_excluded(1 - 1e-12) else _edge(1 - 1e-12, middle, is_excluded),
    )


def _edge(outside: float, inside: float, is_excluded: object) -> float:
    assert callable(is_excluded)
    for _ in range(60):
        half = (outside + inside) / 2
        outside, inside = (half, inside) if is_excluded(half) else (outside, half)
    return outside

"""Exact tests on counts of right and wrong answers; each states its error as a probability, at most."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from probes.binomial import binomial_cdf

_HALVINGS = 60
_EXACT_MAX = 2000  # beyond it whole numbers get slow; logarithms are right to nine digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """One task: how often it was asked, and answered wrongly, when idle and under load."""

    idle_wrong: int
    idle: int
    load_wrong: int
    load: int


def p_more_wrong(strata: Iterable[Stratum]) -> float:
    """Return how likely so many wrong answers under load are if load changes nothing.

    Within a task all answers are alike then, so the wrong ones fall on idle and load by lot (hypergeometric),
    and over tasks the counts add up. With one answer each this is McNemar's exact test.
    """
    seen, chances = 0, [1.0]
    for stratum in strata:
        wrong, total = stratum.idle_wrong + stratum.load_wrong, stratum.idle + stratum.load
        seen += stratum.load_wrong
        terms = {k: hypergeometric(k, total, wrong, stratum.load) for k in range(wrong + 1)}
        terms = {k: chance for k, chance in terms.items() if chance > 0}
        if len(terms) == 1:  # nothing is left to chance: all right, all wrong, or asked on one side only
            seen -= next(iter(terms))
            continue
        folded = [0.0] * (len(chances) + max(terms))
        for k, chance in terms.items():
            for place, before in enumerate(chances):
                folded[place + k] += before * chance
        chances = folded
    return min(1.0, math.fsum(chances[seen:]))


def hypergeometric(k: int, total: int, marked: int, drawn: int) -> float:
    """Return the probability of ``k`` marked ones among ``drawn`` of ``total``."""
    if not max(0, drawn + marked - total) <= k <= min(drawn, marked):
        return 0.0
    if total > _EXACT_MAX:
        return math.exp(
            _log_choices(marked, k) + _log_choices(total - marked, drawn - k) - _log_choices(total, drawn)
        )
    return math.comb(marked, k) * math.comb(total - marked, drawn - k) / math.comb(total, drawn)


def _log_choices(total: int, drawn: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(drawn + 1) - math.lgamma(total - drawn + 1)


def p_more_than_others(bad: int, asked: int, *, bad_all: int, asked_all: int) -> float:
    """Return how likely one of several has so many of the bad ones by chance (Fisher's exact test)."""
    tail = (hypergeometric(k, asked_all, bad_all, asked) for k in range(bad, min(bad_all, asked) + 1))
    return min(1.0, math.fsum(tail))


def holm(chances: Mapping[str, float], *, doubt: float) -> set[str]:
    """Return the names whose hypothesis is refused while at most ``doubt`` is risked over all of them."""
    refused: set[str] = set()
    for place, (name, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        if chance > doubt / (len(chances) - place):
            break
        refused.add(name)
    return refused


def share_at_most(bad: int, total: int, *, doubt: float) -> float:
    """Return the upper bound of a share that is too low with probability ``doubt`` (Clopper and Pearson)."""
    if bad >= total:
        return 1.0
    low, high = bad / total, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_cdf(bad, total, middle) > doubt else (low, middle)
    return high


def share_at_least(bad: int, total: int, *, doubt: float) -> float:
    """Return the lower bound of a share."""
    return 1.0 - share_at_most(total - bad, total, doubt=doubt) if total else 0.0

"""The rule that judges promises over request rows: load tests use it, and game days, phase by phase.

A percentile from one run is itself uncertain. Counted is how many values broke the bound, and a binomial
test over as many values as the run holds *independent* ones says what that means in the long run. PASS and
FAIL are each stated at the SLO's confidence, and between them lies INCONCLUSIVE. All promises together PASS
only when each does, so PASS needs no correction; that none of several is FAILed wrongly takes Holm's.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from probes.distribution import Distribution
from probes.evidence import Evidence, weigh
from probes.finding import Finding
from probes.in_order import ascending
from probes.json_types import JsonObject
from probes.metric import METRICS as METRICS
from probes.metric import percentile as percentile
from probes.outcome import Outcome
from probes.promise import GOODPUT as GOODPUT
from probes.promise import Slo as Slo
from probes.promise import Window as Window
from probes.promise import known_metrics as known_metrics
from probes.quantile_bound import quantile_bounds
from probes.request import Request
from probes.sample_size import requests_left
from probes.sample_size import samples_needed as samples_needed
from probes.share_test import decide as decide
from probes.share_test import holm
from probes.tally import Sums
from probes.tally import Tally as Tally
from probes.tally import count_bad as count_bad
from probes.tally import is_good as is_good
from probes.tally import tally_slo as tally_slo


def slo_holds(
    slos: list[JsonObject] | None = None,
    window_s: float = 30.0,
    settle_s: float = 2.0,
    wait_s: float = 0.0,
    run: str = "",
    out: str = "runs",
) -> bool:
    """Say whether live traffic keeps its promises, as a probe with ``tolerance: true`` of any experiment.

    Judged is the traffic of a load test that runs: ``run`` names its folder; else it is that of the game day,
    or of our control, or the newest that runs under ``out``. ``slos`` are written as in a workload; absent,
    they are that workload's. Looked at are the requests due within ``window_s``, up to ``settle_s`` ago,
    since younger ones may well be under way; for as much traffic it waits at most ``wait_s``.

    Raises:
        TargetError: nobody can say: too few requests, no load test, a dead one. Never taken for a yes.
    """
    from probes.slo_probes import answer_slo_holds

    return answer_slo_holds(slos, window_s, settle_s, wait_s, run, out)


def judge_slos(
    slos: Sequence[Slo],
    requests: Sequence[Request],
    *,
    phase: str = "",
    is_peeked: bool = False,
    is_by_load: bool = False,
) -> list[Finding]:
    """Judge each SLO over the same requests; ``phase`` names the part of a game day they belong to.

    ``is_peeked`` says that the run was looked at while it went on, and could have ended at any look;
    ``is_by_load`` that it speaks for a longer time under this load, as a load test does.
    """
    return judge_slos_of(slos, [(phase, requests)], is_peeked=is_peeked, is_by_load=is_by_load)


def judge_slos_of(
    slos: Sequence[Slo],
    groups: Sequence[tuple[str, Sequence[Request]]],
    *,
    is_peeked: bool = False,
    is_by_load: bool = False,
) -> list[Finding]:
    """Judge each SLO over each of several groups of requests, by name; the empty name is the whole.

    All of it is one family: a group among them is FAILed at the confidence of all together.
    """
    pairs = [(phase, requests, slo) for phase, requests in groups for slo in slos]
    weighed = [
        _weigh(slo, requests, slos, is_peeked=is_peeked, is_by_load=is_by_load) for _, requests, slo in pairs
    ]
    chances = holm([evidence.many for _, evidence in weighed])
    return [
        _finding(slo, sums, evidence, requests, many=many, phase=phase, is_peeked=is_peeked)
        for (phase, requests, slo), (sums, evidence), many in zip(pairs, weighed, chances, strict=True)
    ]


def _weigh(
    slo: Slo,
    requests: Sequence[Request],
    slos: Sequence[Slo],
    *,
    is_peeked: bool = False,
    is_by_load: bool = False,
) -> tuple[Sums, Evidence]:
    """Tally and weigh one promise; what each request came to is not kept, so that promises do not add up."""
    tally = tally_slo(slo, requests, slos)
    return tally.sums, weigh(slo, tally, is_peeked=is_peeked, is_by_load=is_by_load)


def judge_slo(slo: Slo, requests: Sequence[Request], *, slos: Sequence[Slo] = (), phase: str = "") -> Finding:
    """Judge one SLO by itself; ``slos`` are all those that goodput has to meet."""
    sums, evidence = _weigh(slo, requests, slos)
    return _finding(slo, sums, evidence, requests, many=evidence.many, phase=phase, is_peeked=False)


def is_decided(slos: Sequence[Slo], groups: Sequence[tuple[str, Sequence[Request]]]) -> bool:
    """Say whether every promise is decided over every group, at a look that may be one of any number."""
    return all(
        finding.outcome is not Outcome.INCONCLUSIVE
        for finding in judge_slos_of(slos, groups, is_peeked=True, is_by_load=True)
    )


def _finding(
    slo: Slo,
    sums: Sums,
    evidence: Evidence,
    requests: Sequence[Request],
    *,
    many: float,
    phase: str,
    is_peeked: bool,
) -> Finding:
    outcome = evidence.outcome(confidence=slo.confidence, many=many)
    needed = samples_needed(1 - slo.allowed, slo.confidence)
    low, high = _bounds(slo, requests, evidence)
    return Finding(
        rule="slo",
        subject=f"slo:{slo.name}" + (f"@{phase}" if phase else ""),
        outcome=outcome,
        observed=_observed(slo, sums, evidence, requests, outcome, needed, (low, high)),
        expected=f"at least {1 - slo.allowed:.2%} at {slo.confidence:.0%} confidence",
        unit=_unit(slo),
        evidence={
            "bad": sums.possible,
            "bad_for_certain": sums.certain,
            "total": sums.total,
            "inflation": round(evidence.inflation, 3),
            "independent": round(evidence.independent, 1),
            "chance_of_so_few": evidence.few,
            "chance_of_so_many": many,
            "percentile_low": low,
            "percentile_high": high,
            "is_peeked": is_peeked,
            "requests": len(requests),
            "samples_needed": needed,
            "requests_left": requests_left(slo, sums, evidence.inflation),
            "phase": phase,
            "metric": slo.metric,
            "source": slo.source,
        },
        next_step=_next_step(outcome, slo, sums, evidence, needed),
    )


def _observed(
    slo: Slo,
    sums: Sums,
    evidence: Evidence,
    requests: Sequence[Request],
    outcome: Outcome,
    needed: int,
    bounds: tuple[float | None, float | None],
) -> str:
    share = f"{(sums.total - sums.possible) / sums.total:.2%}" if sums.total else "nothing"
    observed = f"{share} of {sums.total} {_counted(slo)}{_percentile_text(slo, requests, bounds)}"
    if evidence.inflation > 1.05:
        observed += f"; neighbours resemble each other: they count as {evidence.independent:.0f}"
    if sums.possible > sums.certain:
        observed += f"; {sums.certain} of {sums.possible} breaches are certain, the rest perhaps ours"
    if outcome is Outcome.INCONCLUSIVE and evidence.independent < needed:
        observed += f"; at least {needed} are needed to pass"
    return observed


def _counted(slo: Slo) -> str:
    if slo.window is not None:
        return f"stretches of {slo.window.length_s:g} s were good"
    return "requests were good" if slo.metric == GOODPUT else f"values at most {slo.bound:g} {_unit(slo)}"


def _next_step(outcome: Outcome, slo: Slo, sums: Sums, evidence: Evidence, needed: int) -> str:
    if outcome is Outcome.PASS:
        return ""
    if outcome is Outcome.FAIL:
        return "look at the slowest and the failed requests of this run in the report"
    if evidence.independent < needed:
        return (
            f"run longer or at a higher rate: {needed} independent samples can decide a clear case, "
            f"{sums.total} came and count as {evidence.independent:.0f}"
        )
    if sums.possible > sums.certain:
        return "give the load client a core of its own, or lower the rate: its own delay blurs the figures"
    left = requests_left(slo, sums, evidence.inflation)
    return (
        f"the truth lies near the objective: about {left} requests more can decide it"
        if left
        else ("the truth lies near the objective: more samples can decide it")
    )


def _unit(slo: Slo) -> str:
    if slo.window is not None:
        return "stretches"
    return "requests" if slo.metric == GOODPUT else METRICS[slo.metric].unit


def _bounds(slo: Slo, requests: Sequence[Request], evidence: Evidence) -> tuple[float | None, float | None]:
    """Return what the percentile lies between; only where each request has one value is that well defined."""
    if slo.metric == GOODPUT or slo.window is not None:
        return None, None
    values = array("d")
    for request in requests:
        if request.is_hung_up:
            continue
        found = METRICS[slo.metric].read(request) if request.is_good else (math.inf,)
        if len(found) > 1:
            return None, None
        values.extend(found)
    low, high = quantile_bounds(
        ascending(values), objective=slo.objective, confidence=slo.confidence, inflation=evidence.inflation
    )
    return _finite(low), _finite(high)


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value


def _percentile_text(slo: Slo, requests: Sequence[Request], bounds: tuple[float | None, float | None]) -> str:
    if slo.metric == GOODPUT or slo.window is not None:
        return ""
    values = Distribution(slo.metric, requests)
    if not values:
        return ""
    observed = values.at_share(slo.objective)
    low, high = (None if bound is None else f"{bound:.1f}" for bound in bounds)
    between = f", of all from {low or '0'} to {high or 'no bound yet'}" if low or high else ""
    return f" (p{slo.objective * 100:g} of the answered: {observed:.1f} {_unit(slo)}{between})"

"""Judges a load on several endpoints: each by itself, the whole, and the client's fail-over between them.

A PASS needs each endpoint and the whole, so none of them needs a correction for it. A FAIL of one among them
has its stated chance of being wrong for all of them together (Holm).
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial

from loadtests.rules.outages import (
    Away,
    Outage,
    Recovery,
    find_outages,
    find_recovery,
    is_of_outage,
    read_aways,
)
from loadtests.sending.routes import Routes
from loadtests.spec.endpoint import NamedEndpoint
from loadtests.spec.workload import Workload
from probes.breaches import CLIENT_ERRORS
from probes.event import Event
from probes.finding import Finding
from probes.outcome import Outcome, worst
from probes.promise import GOODPUT
from probes.request import Request
from probes.request_columns import keep, pick, values_of
from probes.share_test import chance_of_so_many, holm
from probes.traffic import judge_errors

WHOLE = "endpoints:all"
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Requests that are judged together: all, or those of one endpoint."""

    subject: str
    phase: str  # of promises about them; empty: of the whole
    requests: Sequence[Request]
    name: str | None = None  # of the endpoint; None: of all


def groups_of(
    workload: Workload, requests: Sequence[Request], outages: Sequence[Outage], *, whole: str
) -> list[Group]:
    """Return the whole and, where there are several, each endpoint with what went to it.

    What an endpoint that may disappear left unanswered as it did is not held against it; the whole keeps it.
    """
    found = [Group(subject=whole, phase="", requests=requests)]
    for endpoint in workload.endpoints if workload.has_several else ():
        rows = keep(requests, "endpoint_name", where=partial(operator.eq, endpoint.name))
        if endpoint.may_disappear:
            stays = array("I", (n for n, row in enumerate(rows) if not is_of_outage(row, outages)))
            rows = pick(rows, stays)
        subject = f"endpoint:{endpoint.name}"
        found.append(Group(subject=subject, phase=subject, requests=rows, name=endpoint.name))
    return found


def judge_errors_of(
    groups: Sequence[Group], workload: Workload, *, confidence: float = 0.95
) -> list[Finding]:
    """Judge the failures of each group; none is failed for what chance does to one of so many."""
    findings = [
        judge_errors(
            group.requests,
            slos=workload.slos,
            subject=group.subject,
            failed_share_max=workload.failed_share_max,
            confidence=confidence,
        )
        for group in groups
    ]
    allowed = workload.failed_share_max
    if allowed is None:
        return findings
    chances = [_chance_of_failures(group.requests, allowed=allowed) for group in groups]
    return hold_back(findings, chances, doubt=1 - confidence)


def _chance_of_failures(requests: Sequence[Request], *, allowed: float) -> float:
    counted = keep(requests, "is_hung_up", where=lambda is_hung_up: not is_hung_up)
    errors = values_of(counted, "error")
    blamed = sum(error is not None and error not in CLIENT_ERRORS for error in errors)
    return chance_of_so_many(blamed, len(counted), allowed=allowed)


def hold_back(findings: Sequence[Finding], chances: Sequence[float], *, doubt: float) -> list[Finding]:
    """Return the findings, each FAIL that does not hold among so many (Holm) as INCONCLUSIVE."""
    return [
        replace(
            finding,
            outcome=Outcome.INCONCLUSIVE,
            observed=f"{finding.observed}; as one of {len(findings)} subjects not more than chance does "
            f"(p = {chance:.2g} by Holm)",
        )
        if finding.outcome is Outcome.FAIL and chance > doubt
        else finding
        for finding, chance in zip(findings, holm(list(chances)), strict=True)
    ]


def read_outages(events: Sequence[Event], requests: Sequence[Request]) -> list[Outage]:
    """Return the outages that the client's fail-over went through."""
    return find_outages(read_aways(events), requests)


def judge_parts(
    workload: Workload,
    requests: Sequence[Request],
    events: Sequence[Event],
    *,
    seed: int,
    wanted: AbstractSet[int] | None,
) -> list[Finding]:
    """Each endpoint was sent what seed and weights planned for it; other than that, what fail-over moved.

    ``wanted`` are the indexes that the schedule has; None: it cannot have them all, or it is not known.
    """
    routes, names = Routes(workload, seed=seed), [str(endpoint.name) for endpoint in workload.endpoints]
    aways = read_aways(events)
    planned = {index: names[routes.planned(index)] for index in values_of(requests, "index")}
    missing = sorted((wanted or set()) - planned.keys())
    lacking = [names[routes.planned(index)] for index in missing]
    return [
        _judge_part(
            endpoint,
            workload,
            requests,
            planned=planned,
            missing=lacking.count(str(endpoint.name)),
            aways=aways,
        )
        for endpoint in workload.endpoints
    ]


def _judge_part(
    endpoint: NamedEndpoint,
    workload: Workload,
    requests: Sequence[Request],
    *,
    planned: Mapping[int, str],
    missing: int,
    aways: Sequence[Away],
) -> Finding:
    name, total = str(endpoint.name), sum(one.weight for one in workload.endpoints)
    own = keep(requests, "index", where=lambda index: planned[index] == name)
    moved = keep(own, "endpoint_name", where=lambda endpoint: endpoint != name)
    taken = sum(row.endpoint_name == name and planned[row.index] != name for row in requests)
    problems = [
        f"request {row.index} was planned for {row.endpoint_planned}"
        for row in own
        if row.endpoint_planned != name
    ]
    problems += [
        f"request {row.index} went to {row.endpoint_name} although {name} was not lost"
        for row in moved
        if not _may_be_lost(row, name, aways)
    ]
    others = [str(one.name) for one in workload.endpoints if one.name != name]
    problems += [
        f"request {row.index} went to {name}, which was lost, although another was there"
        for row in requests
        if row.endpoint_name == name
        and _is_lost(row, name, aways)
        and not all(_may_be_lost(row, other, aways) for other in others)
    ]
    problems += [f"{missing} arrivals have no row"] if missing else []
    is_kept = bool(own) and not problems
    part = f"{endpoint.weight / total:.1%}"
    observed = f"{len(own)} of {len(requests)} requests were planned for it (weight {part})"
    if workload.fail_over is not None:
        observed += f"; {len(moved)} went to others while it was lost, {taken} came from others"
    if problems:
        observed += f"; {len(problems)} problems: {problems[0]}"
    return Finding(
        rule="accounting",
        subject=f"endpoint:{name}",
        outcome=Outcome.PASS if is_kept else Outcome.INCONCLUSIVE,
        observed=observed,
        expected="every request goes where seed and weights want it, or by fail-over to another",
        unit="requests",
        evidence={
            "planned": len(own),
            "moved_away": len(moved),
            "taken_over": taken,
            "missing": missing,
            "problems": problems[:20],
        },
        next_step="" if is_kept else "run it longer, or read locust.log in the run folder",
    )


def _may_be_lost(row: Request, name: str, aways: Sequence[Away]) -> bool:
    """Whether an endpoint was lost at any moment between a request's due time and its first trace."""
    latest_ns = row.t_sent_ns or row.t_end_ns
    return any(
        (latest_ns is None or latest_ns >= away.lost_ns)
        and (away.back_ns is None or row.t_intended_ns <= away.back_ns)
        for away in aways
        if (away.endpoint, away.worker) == (name, row.worker)
    )


def _is_lost(row: Request, name: str, aways: Sequence[Away]) -> bool:
    """Whether an endpoint was lost at every moment between them."""
    latest_ns = row.t_sent_ns or row.t_end_ns
    return any(
        row.t_intended_ns > away.lost_ns
        and (away.back_ns is None or (latest_ns is not None and latest_ns < away.back_ns))
        for away in aways
        if (away.endpoint, away.worker) == (name, row.worker)
    )


def judge_presence(workload: Workload, outages: Sequence[Outage], *, t0_ns: int) -> list[Finding]:
    """Each endpoint stayed, or may disappear; seen by the client's fail-over."""
    return [_judge_presence(endpoint, outages, t0_ns=t0_ns) for endpoint in workload.endpoints]


def _judge_presence(endpoint: NamedEndpoint, outages: Sequence[Outage], *, t0_ns: int) -> Finding:
    own = [outage for outage in outages if outage.endpoint == endpoint.name]
    is_fine = not own or endpoint.may_disappear
    observed = "; ".join(_outage_text(outage, t0_ns) for outage in own[:_SHOWN]) or "it was never lost"
    return Finding(
        rule="outage",
        subject=f"endpoint:{endpoint.name}",
        outcome=Outcome.PASS if is_fine else Outcome.FAIL,
        observed=observed + (f" and {len(own) - _SHOWN} times more" if len(own) > _SHOWN else ""),
        expected="it may disappear (may_disappear)" if endpoint.may_disappear else "it stays",
        evidence={"outages": [_times(outage, t0_ns) for outage in own]},
        next_step=""
        if is_fine
        else "read what this endpoint logged then; if it was meant to go, say may_disappear: true",
    )


def _outage_text(outage: Outage, t0_ns: int) -> str:
    begin = f"lost {(outage.lost_ns - t0_ns) / 1e9:.1f} s after the start"
    if outage.back_ns is None:
        return f"{begin}, and it stayed away"
    return f"{begin}, back {(outage.back_ns - outage.lost_ns) / 1e9:.1f} s later"


def _times(outage: Outage, t0_ns: int) -> dict[str, float | str | None]:
    return {
        "endpoint": outage.endpoint,
        "lost_at_s": round((outage.lost_ns - t0_ns) / 1e9, 3),
        "detected_after_s": round((outage.detected_ns - outage.lost_ns) / 1e9, 3),
        "back_after_s": None if outage.back_ns is None else round((outage.back_ns - outage.lost_ns) / 1e9, 3),
    }


def judge_fail_over(
    workload: Workload, requests: Sequence[Request], outages: Sequence[Outage], *, t0_ns: int
) -> list[Finding]:
    """After an endpoint was lost, the whole was good again within the time that the workload gives it."""
    within_s = None if workload.fail_over is None else workload.fail_over.within_s
    if within_s is None:
        return []
    recoveries = _recoveries(workload, requests, outages, within_s=within_s)
    outcomes = [_outcome(recovery, within_s=within_s) for recovery in recoveries]
    outcome = worst(outcomes) if outcomes else None
    texts = [_recovery_text(recovery, t0_ns) for recovery in recoveries[:_SHOWN]]
    return [
        Finding(
            rule="fail-over",
            subject=WHOLE,
            outcome=outcome,
            observed="; ".join(texts) or "no endpoint was lost",
            expected=f"the goodput of the whole is back within {within_s:g} s by the client's fail-over",
            unit="s",
            evidence={
                "outages": [
                    _times(recovery.outage, t0_ns) | _recovery_times(recovery) for recovery in recoveries
                ]
            },
            next_step=_NEXT[outcome],
        )
    ]


_NEXT = {
    None: "",
    Outcome.PASS: "",
    Outcome.FAIL: "give the others room for the lost one's part, or detect it sooner "
    "(fail_over.after_failures, endpoint.first_byte_timeout_s)",
    Outcome.INCONCLUSIVE: "let it run longer after the endpoint is lost, with a whole that is good before",
}


def _recoveries(
    workload: Workload, requests: Sequence[Request], outages: Sequence[Outage], *, within_s: float
) -> list[Recovery]:
    weights = {endpoint.name: endpoint.weight for endpoint in workload.endpoints}
    goodput = next((slo for slo in workload.slos if slo.metric == GOODPUT), None)
    objective = 1 - (workload.failed_share_max or 0.0) if goodput is None else goodput.objective
    last_ns = max((row.t_intended_ns for row in requests), default=0) + 1
    nexts = [*(outage.lost_ns for outage in outages[1:]), last_ns]
    return [
        find_recovery(
            outage,
            requests,
            slos=() if goodput is None else workload.slos,
            objective=objective,
            part=weights[outage.endpoint] / sum(weights.values()),
            until_ns=max(next_ns, outage.lost_ns),
            deadline_ns=outage.lost_ns + round(within_s * 1e9),
        )
        for outage, next_ns in zip(outages, nexts, strict=False)
    ]


def _outcome(recovery: Recovery, *, within_s: float) -> Outcome:
    if not recovery.was_good:
        return Outcome.INCONCLUSIVE
    if recovery.recovered_ns is None:
        return Outcome.FAIL if recovery.is_seen else Outcome.INCONCLUSIVE
    took_s = (recovery.recovered_ns - recovery.outage.lost_ns) / 1e9
    return Outcome.PASS if took_s <= within_s else Outcome.FAIL


def _recovery_times(recovery: Recovery) -> dict[str, float | int | None]:
    recovered_ns = recovery.recovered_ns
    return {
        "recovered_after_s": None
        if recovered_ns is None
        else round((recovered_ns - recovery.outage.lost_ns) / 1e9, 3),
        "requests_lost": recovery.lost,
        "requests_in_that_time": recovery.of,
        "share_lost": round(recovery.lost / recovery.of, 4) if recovery.of else None,
    }


def _recovery_text(recovery: Recovery, t0_ns: int) -> str:
    times = _times(recovery.outage, t0_ns) | _recovery_times(recovery)
    text = (
        f"{recovery.outage.endpoint} lost at {times['lost_at_s']:.1f} s, "
        f"detected {times['detected_after_s']:.2f} s later, "
    )
    if not recovery.was_good:
        return text + "but the whole was not good before either"
    if recovery.recovered_ns is None:
        text += "not good again" if recovery.is_seen else "then too few requests came to say"
    else:
        text += f"good again {times['recovered_after_s']:.2f} s after it was lost"
    return text + f"; {recovery.lost} of {recovery.of} requests under way in that time were lost"

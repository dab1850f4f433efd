"""From all trials to the list of what is accused, suspected and cleared, with intervals and next steps."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence

from burnin.fleet.host import Fleet
from burnin.fleet.network.attribution import (
    ACCUSED,
    BOUNDARY,
    CLEARED,
    INTERMITTENT,
    NIC,
    NODE,
    NVLINK_DOMAIN,
    PAIR,
    PAIRS_LISTED_MAX,
    RAIL,
    SLOW,
    SUSPECTED_ALONE,
    SUSPECTED_BEHIND,
    SUSPECTED_ONCE,
    SWITCH,
    Attribution,
    NetworkOutcome,
    accused,
    hosts_of,
)
from burnin.fleet.network.contrast import Contrasts
from burnin.fleet.network.coverage import met_in
from burnin.fleet.network.detour import hidden_adapters, is_well_without
from burnin.fleet.network.inquiry import Inquiry
from burnin.fleet.network.intermittent import Retested
from burnin.fleet.network.meetings import Meetings, all_pairs
from burnin.fleet.network.pair_search import PairFindings
from burnin.fleet.network.part import LEAF, NIC_SIDE, NVLINK_SIDE, OUTWARD, SIDES, Part
from burnin.fleet.network.reading import Reading
from burnin.fleet.network.search import Search
from burnin.fleet.network.settle import is_behind
from burnin.fleet.network.solver import Evidence, interval, noise_of

_NEXT_STEP = {
    NODE: "take the host out of service, run `overproof burnin run` on it alone, replace what fails",
    NIC: "look at the port counters of this adapter, clean and reseat its cable and transceiver",
    RAIL: "look at the switches of this rail, and whether all its adapters are configured alike",
    NVLINK_DOMAIN: "look at the NVSwitch trays and the fabric manager of this domain",
    SWITCH: "look at the switch: port counters, speed and width of its links, temperature, firmware",
    BOUNDARY: "look at the uplinks of these leaf switches: links down, oversubscription, routing",
    PAIR: "look at the route between the two hosts: link aggregation, routing, a bad link on the way",
}


def conclude(fleet: Fleet, inquiries: Sequence[Inquiry]) -> NetworkOutcome:
    """Return all that the network stage did and concluded."""
    noise = noise_of(inquiries[0].search.evidence().readings)
    found = _merged(inquiries, noise)
    known = {a.subject for a in found}
    readings = [reading for inquiry in inquiries for reading in inquiry.search.evidence().readings]
    main = [reading for reading in readings if reading.is_main and len(reading.hosts) > 1]
    compared = {host for r in main if r.level is not None for host in r.hosts}
    tested = compared | {host for r in main if r.works for host in r.hosts}
    results = tuple(result for inquiry in inquiries for result in inquiry.search.results)
    last = inquiries[-1].search
    untested = _untested_pairs(fleet, inquiries)
    cleared = {a.subject: a for i in inquiries for a in _cleared(i.search, i.search.evidence(), known)}
    return NetworkOutcome(
        trials=tuple(result.trial for result in results),
        results=results,
        attributions=tuple(sorted(found, key=_rank)),
        cleared=tuple(cleared.values()),
        untested_hosts=tuple(host.name for host in fleet.hosts if host.name not in tested),
        uncompared_hosts=tuple(host.name for host in fleet.hosts if host.name in tested - compared),
        untested_parts=tuple(_untested_parts(inquiries, found)),
        untested=untested,
        untested_pairs=tuple(itertools.islice(untested.pairs(), PAIRS_LISTED_MAX)),
        untested_pairs_count=untested.count(),
        unjudged=tuple(r.result.trial.id for r in readings if r.level is None and len(r.hosts) > 1),
        unexplained=tuple(trial for i in inquiries for trial in _unexplained(i)),
        rounds=last.rounds,
        node_minutes=last.node_seconds / 60,
        is_cut_short=any(inquiry.search.is_cut_short for inquiry in inquiries),
        detail=_detail(last) if any(inquiry.search.is_cut_short for inquiry in inquiries) else "",
    )


def _merged(inquiries: Sequence[Inquiry], noise: float) -> list[Attribution]:
    """Return what all inquiries concluded, each subject once: accused rather than suspected, the first first.

    A host that was behind a bad switch, and has been tested without it, is not suspected any more.
    """
    concluded = [a for inquiry in inquiries for a in _concluded(inquiry, noise)]
    found: dict[str, Attribution] = {}
    for attribution in sorted(concluded, key=lambda a: a.status != ACCUSED):
        found.setdefault(attribution.subject, attribution)
    accused_hosts = {host for a in accused(list(found.values())) for host in hosts_of(a.subject)}

    def is_settled(host: str, status: str) -> bool:
        return host in accused_hosts or (
            status in (SUSPECTED_BEHIND, SUSPECTED_ALONE) and is_well_without(inquiries, host)
        )

    return [
        a
        for a in found.values()
        if a.status == ACCUSED or not any(is_settled(host, a.status) for host in hosts_of(a.subject))
    ]


def _concluded(inquiry: Inquiry, noise: float) -> Iterator[Attribution]:
    evidence, contrasts = inquiry.search.evidence(), inquiry.contrasts
    yield from _accused_hosts(evidence, contrasts, noise)
    yield from _accused_shared(inquiry.search, evidence, contrasts, noise)
    yield from _accused_rails(contrasts, noise)
    for pair, readings in sorted(inquiry.pairs.accused.items()):
        yield _accused_pair(pair, readings, noise)
    yield from _intermittent(inquiry.retested, evidence)
    yield from _suspected(inquiry.search, evidence, inquiry.retested, inquiry.pairs)


def _untested_parts(inquiries: Sequence[Inquiry], found: Sequence[Attribution]) -> Iterator[str]:
    """Yield the adapters that a bad switch hides, of hosts that are not accused."""
    accused_hosts = {host for a in accused(found) for host in hosts_of(a.subject)}
    for host, rail in hidden_adapters(inquiries):
        if host not in accused_hosts:
            yield f"nic:{host}/{rail}"


def _rank(attribution: Attribution) -> tuple[int, int, float, str]:
    """Order by certainty, then by how much hangs on it, then by how bad it is."""
    is_shared = attribution.kind in (RAIL, NVLINK_DOMAIN, SWITCH, BOUNDARY)
    slowdown = attribution.slowdown if attribution.slowdown is not None else math.inf
    return (attribution.status != ACCUSED, not is_shared, -slowdown, attribution.subject)


def _detail(search: Search) -> str:
    return f"a limit ended the network stage after {search.rounds} rounds" if search.is_cut_short else ""


def _accused_hosts(evidence: Evidence, contrasts: Contrasts, noise: float) -> Iterator[Attribution]:
    for host in sorted({part.name for part in evidence.accused if part.kind in (NIC_SIDE, NVLINK_SIDE)}):
        sides = [part for part in evidence.accused if part.name == host]
        solo = [reading for part in sorted(sides) for reading in evidence.solo[part]]
        side = Part(NIC_SIDE, host)
        rail = contrasts.rail.get(side)
        kind = NIC if rail is not None and len(sides) == 1 else NODE
        yield _accusation(
            kind=kind,
            subject=f"nic:{host}/{rail}" if kind == NIC else f"host:{host}",
            readings=solo,
            noise=noise,
            tried=_among_well(evidence, sides),
            more=contrasts.evidence.get(side, []),
            detail=_inside_or_out(host, sides, contrasts, rail),
        )


def _inside_or_out(host: str, sides: Sequence[Part], contrasts: Contrasts, rail: int | None) -> str:
    inside = contrasts.inside.get(host)
    if rail is not None:
        return f"slow on rail {rail} alone: its adapter, cable or port, or the GPU that feeds it"
    if inside is not None and inside.is_bad:
        return "slow without any network as well"
    if inside is not None and inside.is_good:
        kinds = {part.kind for part in sides}
        what = "NVLink between hosts" if kinds == {NVLINK_SIDE} else "the network"
        return f"well by itself; slow over {what}, not on one rail alone"
    return ""


def _accusation(
    *,
    kind: str,
    subject: str,
    readings: Sequence[Reading],
    noise: float,
    tried: Sequence[Reading],
    more: Sequence[Reading] = (),
    detail: str = "",
) -> Attribution:
    worst = max(readings, key=lambda r: r.level or 0)
    slow = [r.level for r in readings if r.level is not None and r.fault == SLOW]
    middle, low, high = interval(slow, noise=noise) if slow and worst.fault == SLOW else (None, None, None)
    return Attribution(
        kind=kind,
        subject=subject,
        status=ACCUSED,
        fault=worst.fault,
        slowdown=middle,
        slowdown_low=low,
        slowdown_high=high,
        trials=len(tried),
        trials_bad=sum(r.is_bad for r in tried),
        evidence=tuple(dict.fromkeys(r.result.trial.id for r in (*readings, *more))),
        detail=detail,
        next_step=_NEXT_STEP[kind],
    )


def _among_well(evidence: Evidence, sides: Iterable[Part]) -> list[Reading]:
    """Return the trials in which all others are known to be well."""
    own = set(sides)
    return [
        reading
        for part in sorted(own)
        for reading in evidence.tried.get(part, ())
        if all(evidence.is_good(p) for p in reading.parts if p.kind in SIDES and p.name != part.name)
    ]


def _accused_shared(
    search: Search, evidence: Evidence, contrasts: Contrasts, noise: float
) -> Iterator[Attribution]:
    for part, level in sorted(evidence.shared.items()):
        at_level = [
            r
            for r in evidence.tried[part]
            if r.level is not None and abs(r.level - level) < 0.1 and len(r.hosts) <= 2
        ]
        tried = [r for r in evidence.tried[part] if len(r.hosts) <= 2]
        kind, subject, detail = _shared_subject(search, part, contrasts)
        yield _accusation(
            kind=kind,
            subject=subject,
            readings=at_level or evidence.tried[part],
            noise=noise,
            tried=tried,
            more=contrasts.evidence.get(part, []),
            detail=detail,
        )


def _shared_subject(search: Search, part: Part, contrasts: Contrasts) -> tuple[str, str, str]:
    members = search.topology.fabric_members().get(part.name, ())
    if part.kind == LEAF:
        rail = contrasts.rail.get(part)
        if rail is None:
            return SWITCH, f"switch:{part.name}", f"all {len(members)} hosts behind it"
        switches = search.topology.rails.get(members[0], ()) if members else ()
        name = switches[rail] if rail < len(switches) else part.name
        return SWITCH, f"switch:{name}", f"rail {rail} of all {len(members)} hosts behind it"
    if part.kind == OUTWARD:
        return BOUNDARY, f"boundary:{part.name}", f"its {len(members)} hosts are well among themselves"
    return NVLINK_DOMAIN, f"domain:{part.name}", "no trial within it was good"


def _accused_rails(contrasts: Contrasts, noise: float) -> Iterator[Attribution]:
    for rail, readings in sorted(contrasts.rails.items()):
        yield _accusation(
            kind=RAIL,
            subject=f"rail:{rail}",
            readings=readings,
            noise=noise,
            tried=readings,
            detail="slow in most pairs of hosts, in two rounds with other pairs; it slows every trial",
        )


def _accused_pair(pair: tuple[str, str], readings: Sequence[Reading], noise: float) -> Attribution:
    return _accusation(
        kind=PAIR,
        subject=f"link:{pair[0]}-{pair[1]}",
        readings=readings,
        noise=noise,
        tried=readings,
        detail="both hosts are well with others",
    )


def _intermittent(retested: Retested, evidence: Evidence) -> Iterator[Attribution]:
    for host, hits in sorted(retested.accused.items()):
        if any(part.name == host for part in evidence.accused if part.kind in SIDES):
            continue
        trials = retested.trials.get(host, len(hits))
        slow = [r.level for r in hits if r.fault == SLOW and r.level is not None]
        yield Attribution(
            kind=NODE,
            subject=f"host:{host}",
            status=ACCUSED,
            fault=INTERMITTENT,
            slowdown=math.exp(statistics.fmean(slow)) if slow else None,
            trials=trials,
            trials_bad=len(hits),
            evidence=tuple(r.result.trial.id for r in hits),
            detail=f"bad in {len(hits)} of {trials} trials with healthy partners: comes and goes",
            next_step="look for a link that flaps (carrier changes), reseat it, then run `soak`",
        )


def _suspected(
    search: Search, evidence: Evidence, retested: Retested, pairs: PairFindings
) -> Iterator[Attribution]:
    for host in search.topology.hosts:
        side = Part(NIC_SIDE, host)
        sides = [Part(kind, host) for kind in (NIC_SIDE, NVLINK_SIDE)]
        if any(part in evidence.accused for part in sides) or host in retested.accused:
            continue
        if is_behind(evidence, search, side) and side in evidence.tried:
            yield _suspicion(evidence, side, SUSPECTED_BEHIND, "test it again once that part is well")
        elif side in evidence.upper and not evidence.is_good(side):
            yield _suspicion(evidence, side, SUSPECTED_ALONE, "test it again with other healthy hosts")
        elif host in retested.seen_once and not _is_explained(retested, pairs, host):
            yield Attribution(
                kind=NODE,
                subject=f"host:{host}",
                status=SUSPECTED_ONCE if retested.trials.get(host) else SUSPECTED_ALONE,
                fault=INTERMITTENT,
                trials=retested.trials.get(host, 0),
                trials_bad=len(retested.hits.get(host, ())),
                evidence=tuple(r.result.trial.id for r in retested.seen_once[host]),
                detail=f"not seen again in {retested.trials.get(host, 0)} retests with healthy partners",
                next_step="run `soak` on it: a rare fault needs more time than this profile takes",
            )


def _is_explained(retested: Retested, pairs: PairFindings, host: str) -> bool:
    """Whether every bad trial of a host had an accused host, or was that of an accused pair."""
    return all(
        r.hosts & set(retested.accused) or tuple(sorted(r.hosts)) in pairs.accused
        for r in retested.seen_once[host]
    )


def _suspicion(evidence: Evidence, side: Part, status: str, next_step: str) -> Attribution:
    bad = [reading for reading in evidence.tried[side] if reading.is_bad]
    worst = max(bad, key=lambda r: r.level or 0, default=None)
    return Attribution(
        kind=NODE,
        subject=f"host:{side.name}",
        status=status,
        fault=worst.fault if worst else SLOW,
        trials=len(evidence.tried[side]),
        trials_bad=len(bad),
        evidence=tuple(r.result.trial.id for r in bad),
        next_step=next_step,
    )


def _cleared(search: Search, evidence: Evidence, known: set[str]) -> Iterator[Attribution]:
    for host in search.topology.hosts:
        side = Part(NIC_SIDE, host)
        tried = evidence.tried.get(side, [])
        bad = [reading for reading in tried if reading.is_bad]
        good = [reading for reading in tried if reading.is_good]
        if bad and good and f"host:{host}" not in known:
            yield Attribution(
                kind=NODE,
                subject=f"host:{host}",
                status=CLEARED,
                fault=bad[0].fault,
                trials=len(tried),
                trials_bad=len(bad),
                evidence=tuple(reading.result.trial.id for reading in good),
            )


def _unexplained(inquiry: Inquiry) -> Iterator[str]:
    """Return bad trials that nothing accused explains."""
    evidence = inquiry.search.evidence()
    for reading in evidence.readings:
        if not reading.is_bad or not reading.is_main or len(reading.hosts) < 2:
            continue
        if reading.hosts & set(inquiry.retested.accused):
            continue
        if not evidence.explains(reading) and not inquiry.pairs.explains(reading):
            yield reading.result.trial.id


def _untested_pairs(fleet: Fleet, inquiries: Sequence[Inquiry]) -> Meetings:
    """Return the pairs of hosts that never exchanged data through parts that are well."""
    names = [host.name for host in fleet.hosts]
    untested = all_pairs(names)
    for inquiry in inquiries:
        readings = inquiry.search.evidence().readings
        untested = untested.without(met_in(names, readings, inquiry.pairs.accused))
    return untested

"""Faults that come and go: who did badly once and well the next time is tested again, not simply cleared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from burnin.fleet.network.designs import match
from burnin.fleet.network.pair_search import PairFindings
from burnin.fleet.network.part import NIC_SIDE, NVLINK_SIDE, Part
from burnin.fleet.network.reading import Reading
from burnin.fleet.network.search import Plan, Search
from burnin.fleet.network.settle import may_meet, path_for
from burnin.fleet.network.solver import Evidence

HITS_MIN = 2  # with different healthy partners


@dataclass(slots=True)
class Retested:
    """Who was put to the test again, and what came of it."""

    accused: dict[str, tuple[Reading, ...]] = field(default_factory=dict)  # the trials in which it was bad
    trials: dict[str, int] = field(default_factory=dict)  # with partners that are known to be well
    hits: dict[str, tuple[Reading, ...]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)  # ids of trials whose hosts were retested
    seen_once: dict[str, tuple[Reading, ...]] = field(
        default_factory=dict
    )  # suspects that did well ever after


def retest(search: Search, pairs: PairFindings, found: Retested, *, rounds: int, confirmations: int) -> None:
    """Retest the hosts of trials that were bad, or dipped, for no reason that lasts.

    First in pairs among themselves, ``rounds`` times with other partners; then each one that was in a bad
    pair up to ``confirmations`` times with partners that never were.
    """
    evidence = search.evidence()
    unclear = [r for r in evidence.readings if is_unclear(evidence, pairs, found, r)]
    if not unclear:
        return
    hosts = sorted({host for reading in unclear for host in reading.hosts if _may_be_tested(evidence, host)})
    found.done |= {reading.result.trial.id for reading in unclear}
    side = NIC_SIDE if any(p.kind == NIC_SIDE for r in unclear for p in r.parts) else NVLINK_SIDE
    since = len(search.results)
    for _ in range(rounds):
        plans = list(_pairings(search, hosts, since, side))
        if not plans or not search.has_room():
            break
        search.run(plans)
    _confirm(search, pairs, found, since, confirmations, side)
    found.done |= {reading.result.trial.id for reading in search.evidence().readings}


def is_unclear(evidence: Evidence, pairs: PairFindings, found: Retested, reading: Reading) -> bool:
    """Say whether a trial was bad, or dipped, and nothing that is accused explains it."""
    if not (reading.is_bad or reading.dip) or not reading.is_main or len(reading.hosts) < 2:
        return False
    if reading.result.trial.id in found.done or reading.hosts & set(found.accused):
        return False
    if any(part in evidence.accused or part in evidence.shared for part in reading.parts):
        return False
    return not (reading.is_bad and pairs.explains(reading))


def _may_be_tested(evidence: Evidence, host: str) -> bool:
    sides = (Part(NIC_SIDE, host), Part(NVLINK_SIDE, host))
    return any(evidence.is_good(s) for s in sides) and not any(s in evidence.accused for s in sides)


def _pairings(search: Search, hosts: list[str], since: int, side: str) -> Iterator[Plan]:
    evidence = search.evidence()
    met: set[frozenset[str]] = {r.hosts for r in evidence.readings[since:] if len(r.hosts) == 2}
    drawn = list(hosts)
    search.rng("retest").shuffle(drawn)
    place = search.topology.fabric
    taken: set[str] = set()

    def knows(a: str, b: str) -> bool:
        return frozenset((a, b)) in met

    def near(host: str) -> list[str]:
        return [other for other in drawn if place.get(other) == place.get(host)]

    well = _never_bad(evidence)

    def far(host: str) -> list[str]:
        return [other for other in well if may_meet(search, evidence, host, other)]

    pairs = match(drawn, near, met=knows, taken=taken) + match(drawn, far, met=knows, taken=taken)
    for pair in pairs:
        yield Plan(design="tournament", hosts=pair, path=path_for(search, side, pair))


def _never_bad(evidence: Evidence) -> list[str]:
    """Return the hosts that are well and were in no trial of two that was bad or dipped."""
    bad = {h for r in evidence.readings if len(r.hosts) == 2 and (r.is_bad or r.dip) for h in r.hosts}
    names = sorted(
        part.name
        for part in evidence.upper
        if part.kind == NIC_SIDE and evidence.is_good(part) and part not in evidence.accused
    )
    return [name for name in names if name not in bad]


def _confirm(search: Search, pairs: PairFindings, found: Retested, since: int, times: int, side: str) -> None:
    evidence = search.evidence()
    first = [
        r
        for r in evidence.readings[since:]
        if len(r.hosts) == 2 and is_unclear(evidence, pairs, found, r) and not _is_known(pairs, r)
    ]
    suspects = sorted({host for reading in first for host in reading.hosts if _may_be_tested(evidence, host)})
    begun = len(search.results)
    for step in range(2 * times):
        tally = _tally(search, suspects, begun)
        # Twice the number of retests for who was bad once more: half a proof is the worst place to stop.
        going = [h for h in suspects if len(tally[h][1]) < HITS_MIN and (step < times or tally[h][1])]
        plans = _confirmations(search, going, begun, side)
        if not plans or not search.has_room():
            break
        search.run(plans)
    for host, (trials, hits) in _tally(search, suspects, begun).items():
        found.trials[host] = found.trials.get(host, 0) + trials
        found.hits[host] = found.hits.get(host, ()) + hits
        if len(hits) >= HITS_MIN:
            found.accused[host] = hits
        else:
            found.seen_once[host] = tuple(r for r in first if host in r.hosts) + hits


def _is_known(pairs: PairFindings, reading: Reading) -> bool:
    return any(set(pair) == reading.hosts for pair in pairs.accused)


def _tally(search: Search, suspects: list[str], begun: int) -> dict[str, tuple[int, tuple[Reading, ...]]]:
    """Return for each suspect how often it was confirmed, and the trials in which it was bad again."""
    tally: dict[str, tuple[int, tuple[Reading, ...]]] = dict.fromkeys(suspects, (0, ()))
    evidence = search.evidence()
    for reading in evidence.readings[begun:]:
        if (
            reading.result.trial.design != "confirm"
            or reading.level is None
            or not hosts_only(evidence, reading)
        ):
            continue
        for host in sorted(reading.hosts & set(suspects)):
            trials, hits = tally[host]
            tally[host] = trials + 1, hits + ((reading,) if reading.is_bad or reading.dip else ())
    return tally


def _confirmations(search: Search, going: list[str], begun: int, side: str) -> list[Plan]:
    evidence = search.evidence()
    met = {r.hosts for r in evidence.readings[begun:] if len(r.hosts) == 2}
    well = [host for host in _never_bad(evidence) if host not in going]
    search.rng("confirm").shuffle(well)
    place = search.topology.fabric
    taken: set[str] = set()

    def knows(a: str, b: str) -> bool:
        return frozenset((a, b)) in met

    def near(host: str) -> list[str]:
        return [other for other in well if place.get(other) == place.get(host)]

    def far(host: str) -> list[str]:
        return [other for other in well if may_meet(search, evidence, host, other)]

    pairs = match(going, near, met=knows, taken=taken) + match(going, far, met=knows, taken=taken)
    pairs += match(going, near, met=_never, taken=taken)  # the same again, rather than nobody
    return [Plan(design="confirm", hosts=pair, path=path_for(search, side, pair)) for pair in pairs]


def _never(a: str, b: str) -> bool:
    del a, b
    return False


def hosts_only(evidence: Evidence, reading: Reading) -> bool:
    """Say whether a trial ran through nothing shared that is accused: what it says is about its hosts."""
    return not any(part in evidence.shared for part in reading.parts)

"""The vote across nodes on what a product's bits are: equal products of equal devices have equal digests.

A host has one vote, that of most of its GPUs: they share processor, driver and libraries, and are no
independent witnesses. Who computes wrongly by the rules of its own host is in no table and has no vote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnin.fleet.outliers import subject_of_part
from burnin.rules.vote import majority
from probes.finding import Finding
from probes.outcome import Outcome
from reports.fleet_tables import PLACES, FleetTables

_EXPECTED = "the same product has the same bits on every device of this model with these versions"
_PRODUCTS_MAX = 50  # of which the votes are told
_SUSPECT = "take it out of service and repeat the run on it alone; if it dissents again, replace it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One product on which not all agree."""

    product: str
    camps: Mapping[str, Sequence[str]]  # digest -> hosts that vote for it
    odd: Sequence[tuple[str, str]]  # host and GPU that dissent from their own host's vote


def judge_digest_vote(tables: FleetTables, *, fleet: str) -> list[Finding]:
    """Name who dissents: a GPU or a host alone fails, without a majority nobody can say who is right."""
    findings = []
    for ballot in _contested(tables):
        findings += _judge(ballot, tables, fleet)
    products, compared, gpus = tables.rows(_SUMMARY)[0]
    if not compared:
        observed = (
            f"products: {products}, none of them made on two hosts alike" if products else "no digest at all"
        )
    else:
        observed = f"products compared: {compared}, with {gpus:,} digests"
    return [
        *_fold(findings),
        _finding(f"fleet:{fleet}", Outcome.PASS if compared else None, observed, [], ""),
    ]


_SUMMARY = """
WITH each_product AS (
  SELECT product, count(*) AS n, count(DISTINCT host) AS hosts FROM digest GROUP BY product
)
SELECT count(*), count(*) FILTER (hosts > 1), coalesce(sum(n) FILTER (hosts > 1), 0)::BIGINT FROM each_product
"""
_CONTESTED = """
WITH contested AS (
  SELECT product FROM digest GROUP BY product HAVING count(DISTINCT digest) > 1 AND count(DISTINCT host) > 1
  ORDER BY product LIMIT ?
),
counted AS (
  SELECT product, host, digest, count(*) AS n FROM digest JOIN contested USING (product) GROUP BY ALL
),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY product, host ORDER BY n DESC, digest) AS place,
         lead(n) OVER (PARTITION BY product, host ORDER BY n DESC, digest) AS next
  FROM counted
)
SELECT product, digest, list(host ORDER BY host) FROM ranked
WHERE place = 1 AND (next IS NULL OR next < n) GROUP BY product, digest ORDER BY product, digest
"""
_ODD = """
SELECT host, gpu FROM digest JOIN (SELECT unnest(?) AS host, unnest(?) AS voted) USING (host)
WHERE product = ? AND digest <> voted ORDER BY host, gpu LIMIT 100
"""
# Where half of a host's GPUs say this and half that, it has no vote: the other hosts decide who is wrong.
_OF_NO_VOTE = """
SELECT host, gpu FROM digest
WHERE product = ? AND digest <> ? AND NOT list_contains(?, host) ORDER BY host, gpu LIMIT 100
"""


def _fold(findings: Sequence[Finding]) -> list[Finding]:
    """Name a dissenter once, whatever number of products it dissents on."""
    kept: dict[tuple[str, Outcome | None, tuple[str, ...]], Finding] = {}
    for finding in findings:
        key = (finding.subject, finding.outcome, tuple(finding.evidence["hosts"]))
        if key in kept:
            kept[key].evidence.setdefault("also", []).append(finding.observed)
        else:
            kept[key] = finding
    return list(kept.values())


def _contested(tables: FleetTables) -> list[Ballot]:
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for product, digest, hosts in tables.rows(_CONTESTED, _PRODUCTS_MAX):
        assert isinstance(hosts, list)
        found[str(product)][str(digest)] = [str(host) for host in hosts]
    ballots = []
    for product, camps in found.items():
        pairs = [(host, digest) for digest, hosts in camps.items() for host in hosts]
        odd = tables.rows(_ODD, [host for host, _ in pairs], [digest for _, digest in pairs], product)
        ballots.append(Ballot(product=product, camps=camps, odd=[(str(h), str(g)) for h, g in odd]))
    return ballots


def _judge(ballot: Ballot, tables: FleetTables, fleet: str) -> list[Finding]:
    right = majority({digest: len(hosts) for digest, hosts in ballot.camps.items()})
    lone = [
        _finding(
            subject_of_part(host, gpu),
            Outcome.FAIL,
            f"on {host}: {ballot.product}: its digest differs from that of the other GPUs there",
            [host],
            _SUSPECT,
        )
        for host, gpu in [*ballot.odd, *_of_no_vote(ballot, right, tables)]
    ]
    if right is None:
        return [*lone, *_undecided(ballot, fleet)]
    dissent = [hosts for digest, hosts in ballot.camps.items() if digest != right]
    agreed = len(ballot.camps[right])
    return lone + [_dissent(ballot, hosts, agreed, tables, fleet) for hosts in dissent]


def _of_no_vote(ballot: Ballot, right: str | None, tables: FleetTables) -> list[tuple[str, str]]:
    """Return the GPUs that dissent from the majority of the other hosts, of hosts that are divided."""
    voted = [host for hosts in ballot.camps.values() for host in hosts]
    rows = [] if right is None else tables.rows(_OF_NO_VOTE, ballot.product, right, voted)
    return [(str(host), str(gpu)) for host, gpu in rows]


def _undecided(ballot: Ballot, fleet: str) -> list[Finding]:
    if len(ballot.camps) < 2:
        return []
    camps = "; ".join(f"{_names(hosts)} say {digest}" for digest, hosts in list(ballot.camps.items())[:6])
    hosts = [host for camp in ballot.camps.values() for host in camp]
    step = "run it again with more hosts of this kind: without a majority nobody can say who is right"
    observed = f"{ballot.product}: no majority: {camps}"
    return [_finding(f"fleet:{fleet}", Outcome.INCONCLUSIVE, observed, hosts, step)]


def _dissent(ballot: Ballot, hosts: Sequence[str], agreed: int, tables: FleetTables, fleet: str) -> Finding:
    """Judge hosts that agree with each other on other bits than the majority."""
    if len(hosts) == 1:
        observed = f"{ballot.product}: {agreed} hosts agree on another digest"
        return _finding(f"host:{hosts[0]}", Outcome.FAIL, observed, hosts, _SUSPECT)
    place = _common_place(hosts, tables)
    observed = (
        f"{ballot.product}: {_names(hosts)} agree with each other, but {agreed} hosts on another digest"
    )
    step = "compare what these hosts run on (drift table); parts that fail alone do not agree with each other"
    return _finding(place or f"fleet:{fleet}", Outcome.INCONCLUSIVE, observed, hosts, step)


def _common_place(hosts: Sequence[str], tables: FleetTables) -> str | None:
    """Return the rack or the like that these hosts, and only they, stand in; None: there is none."""
    for kind in PLACES:
        query = f"""
        WITH dissent AS (SELECT unnest(?) AS host),
        where_ AS (
          SELECT min({kind}) AS name, count(DISTINCT {kind}) AS places, count({kind}) AS known
          FROM dissent JOIN host USING (host)
        )
        SELECT *, (SELECT count(*) FROM host WHERE {kind} = name AND state = 'finished') FROM where_
        """  # noqa: S608  (names of our own columns)
        name, places, known, members = tables.rows(query, list(hosts))[0]
        if places == 1 and known == len(hosts) and members == len(hosts):
            return f"{kind}:{name}"
    return None


def _names(hosts: Sequence[str], most: int = 6) -> str:
    more = f" and {len(hosts) - most} more" if len(hosts) > most else ""
    return ", ".join(hosts[:most]) + more


def _finding(
    subject: str, outcome: Outcome | None, observed: str, hosts: Sequence[str], step: str
) -> Finding:
    return Finding(
        rule="fleet-digest",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=_EXPECTED,
        evidence={"hosts": list(hosts)} if hosts else {},
        next_step=step,
    )

"""The heat map of a fleet's network: how fast every two hosts, or every two domains, exchanged data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reports.fleet_tables import FleetTables

HOSTS_MAX = 64  # more rows than this cannot be read: then domains, and of too many domains blocks of them
# A trial is compared with its like, so that a cell means the same whatever the size of the group.
_PAIRS = """
WITH sweep AS (
  SELECT trial, round, hosts, state, is_complete, busbw_gbps, collective, size_bytes, path, len(hosts) AS n,
         median(busbw_gbps) FILTER (is_complete)
           OVER (PARTITION BY collective, size_bytes, path, len(hosts)) AS usual
  FROM net WHERE len(hosts) > 1
),
tried AS (
  SELECT trial, round, any_value(hosts) AS hosts, any_value(n) AS n,
         bool_or(state <> 'done' OR NOT coalesce(is_complete, false)) AS is_broken,
         min(busbw_gbps / nullif(usual, 0)) AS share, arg_max(busbw_gbps, size_bytes) AS busbw
  FROM sweep WHERE state <> 'not run' GROUP BY trial, round
),
member AS (
  SELECT DISTINCT trial, round, b.number, n, CASE WHEN is_broken THEN 0 ELSE share END AS share, busbw
  FROM (SELECT *, unnest(hosts) AS host FROM tried) JOIN bucket b USING (host)
),
width AS (SELECT trial, round, count(*) AS buckets FROM member GROUP BY trial, round),
pair AS (
  SELECT a.number AS a, b.number AS b, a.share, a.busbw, a.n, buckets, a.trial
  FROM member a JOIN member b USING (trial, round) JOIN width USING (trial, round)
  WHERE a.number < b.number OR (a.number = b.number AND buckets = 1)
),
finest AS (SELECT *, min((buckets, n)) OVER (PARTITION BY a, b) AS least FROM pair)
SELECT a, b, min(share), arg_min(busbw, share), arg_min(n, share), count(*) FROM finest
WHERE (buckets, n) = least GROUP BY a, b ORDER BY a, b
"""
_DOMAINS = "SELECT host, coalesce(nvlink_domain, switch, rack) FROM host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Two of the rows, and what they reached together in the smallest group that held both."""

    row: int
    column: int
    share: float | None  # of what is usual for such trials; 0: broken or hung; None: no figure
    busbw_gbps: float | None
    hosts: int  # in that trial
    trials: int

    @property
    def level(self) -> int:
        """A step of the colour scale, 0 (broken) to 6 (as fast as usual); -1: no figure."""
        if self.share is None:
            return -1
        return 0 if self.share <= 0 else heat_level(self.share)


_STEPS = ((6, 0.95), (5, 0.9), (4, 0.8), (3, 0.65), (2, 0.4))
STEPS_TEXT = ("broken", "below 40 %", "40 %", "65 %", "80 %", "90 %", "95 % or more")


def heat_level(share: float) -> int:
    """Return the step of the colour scale, 1 to 6, of what is not broken."""
    return next((step for step, least in _STEPS if share >= least), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A heat map: rows are hosts or what stands for several of them."""

    labels: tuple[str, ...]
    kind: str  # "host", "domain", "block of domains" or "block of hosts"
    cells: tuple[Cell, ...]
    pairs: int  # that two rows can form
    seen: int  # of those


def read_heat(tables: FleetTables) -> Heat | None:
    """Return the map; None: the record holds no trial of two hosts or more."""
    if not tables.rows("SELECT 1 FROM net WHERE len(hosts) > 1 LIMIT 1"):
        return None
    placed = [(str(host), None if d is None else str(d)) for host, d in tables.rows(_DOMAINS)]
    placed.sort(key=lambda pair: (pair[1] is None, _natural(pair[1] or ""), _natural(pair[0])))
    labels, kind, numbers = _buckets(placed)
    tables.fill("bucket", {"host": "VARCHAR", "number": "INTEGER"}, list(numbers.items()))
    cells = tuple(
        Cell(
            row=int(str(a)),
            column=int(str(b)),
            share=None if share is None else float(str(share)),
            busbw_gbps=None if busbw is None else float(str(busbw)),
            hosts=int(str(n)),
            trials=int(str(count)),
        )
        for a, b, share, busbw, n, count in tables.rows(_PAIRS)
    )
    pairs = len(labels) * (len(labels) - 1) // 2
    seen = sum(1 for cell in cells if cell.row != cell.column)
    return Heat(labels=labels, kind=kind, cells=cells, pairs=pairs, seen=seen)


def _buckets(placed: list[tuple[str, str | None]]) -> tuple[tuple[str, ...], str, dict[str, int]]:
    """Return the rows, what they are, and the row of each host."""
    if len(placed) <= HOSTS_MAX:
        return tuple(host for host, _ in placed), "host", {host: n for n, (host, _) in enumerate(placed)}
    domains = list(dict.fromkeys(domain for _, domain in placed if domain is not None))
    if not domains:
        blocks = _blocks([host for host, _ in placed])
        return _names(blocks), "block of hosts", {h: n for n, block in enumerate(blocks) for h in block}
    rows = _blocks(domains) if len(domains) > HOSTS_MAX else [[domain] for domain in domains]
    number = {domain: n for n, block in enumerate(rows) for domain in block}
    found = {host: number[domain] for host, domain in placed if domain is not None}
    kind = "domain" if len(rows) == len(domains) else "block of domains"
    return _names(rows), kind, found


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return what sorts rack2 before rack10."""
    parts = enumerate(re.split(r"([0-9]{1,18})", name))  # digits stand at the odd places
    return [(index % 2 == 1, int(part) if index % 2 else 0, part) for index, part in parts]


def _blocks(names: list[str]) -> list[list[str]]:
    size = -(-len(names) // HOSTS_MAX)
    return [names[start : start + size] for start in range(0, len(names), size)]


def _names(blocks: list[list[str]]) -> tuple[str, ...]:
    return tuple(block[0] if len(block) == 1 else f"{block[0]} to {block[-1]}" for block in blocks)

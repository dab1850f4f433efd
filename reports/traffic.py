"""The panels of a load test by SQL: what was asked, what came back and how fast, per interval of time.

Nothing here holds a request as an object, so that ten million take no more memory than a thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from reports.panel import Panel, Point, Series, thin
from reports.thinning import thinned_lines

_INTERVALS_S = (1, 2, 5, 10, 30, 60, 300, 600, 3600)
_INTERVALS_MAX = 1200
_NS = 1_000_000_000
# Values of an interval are counted in classes of 1 %; a percentile is the highest value that was measured in
# its class: at most 1 % above the order statistic, and exactly it where a class holds one value.
_PER_E = 100
# Requests under way are exact up to so many of them; of more, as at the end of each of so many steps.
_EXACT_MAX = 200_000
_STEPS = 1_000_000
_END = "coalesce(t_end_ns, t_sent_ns, t_intended_ns)"

Found = Mapping[int, Sequence[float]]


def traffic_panels(requests: duckdb.DuckDBPyConnection, t0_ns: int) -> list[Panel]:
    """Return the panels of these requests, none where there are none."""
    width_s = interval_s(requests)
    if width_s is None:
        return []
    per = "second" if width_s == 1 else f"{width_s} s"
    return [
        _rates(requests, t0_ns, width_s, per),
        _in_flight(requests, t0_ns),
        _percentiles(
            "ttft",
            f"Time to first token, of requests sent in each {per}",
            _ttfts(requests, t0_ns, width_s),
            width_s,
            (0.5, 0.95),
        ),
        _percentiles(
            "gap", f"Gap between tokens, per {per}", _gaps(requests, t0_ns, width_s), width_s, (0.5, 0.99)
        ),
        _lag(requests, t0_ns, width_s, per),
    ]


def interval_s(requests: duckdb.DuckDBPyConnection) -> int | None:
    """Return the interval over which requests are counted, wider for long runs; None: no request."""
    found = requests.execute(f"SELECT min(t_intended_ns), max({_END}) FROM requests").fetchall()  # noqa: S608
    first_ns, last_ns = found[0]
    if first_ns is None:
        return None
    span_s = (last_ns - first_ns) / 1e9
    return next((width for width in _INTERVALS_S if span_s / width <= _INTERVALS_MAX), _INTERVALS_S[-1])


def _interval(t_ns: str, t0_ns: int, width_s: int) -> str:
    """Return SQL for the number of the interval; a clock that jumped may make it negative."""
    return f"CAST(floor(({t_ns} - {t0_ns}) / {width_s * _NS}) AS INTEGER)"


def _rates(requests: duckdb.DuckDBPyConnection, t0_ns: int, width_s: int, per: str) -> Panel:
    counts = requests.execute(
        f"""
        SELECT number, sum(arrived), sum(good), sum(failed) FROM (
            SELECT {_interval("t_intended_ns", t0_ns, width_s)} AS number, count(*) AS arrived, 0 AS good,
                0 AS failed FROM requests GROUP BY number
            UNION ALL
            SELECT {_interval(_END, t0_ns, width_s)} AS number, 0, count(*) FILTER (error IS NULL),
                count(*) FILTER (error IS NOT NULL) FROM requests GROUP BY number
        ) GROUP BY number
        """  # noqa: S608
    ).fetchall()
    by_number = {number: tuple(map(int, found)) for number, *found in counts}
    span = range(min(by_number), max(by_number) + 1)
    return Panel(
        name="requests",
        title=f"Requests, counted per {per}",
        unit="1/s",
        series=tuple(
            _counts(label, role, {n: found[place] for n, found in by_number.items()}, span, width_s)
            for place, (label, role) in enumerate(
                (("arrivals", "faint"), ("good", "good"), ("failed", "bad"))
            )
        ),
        note="arrivals as scheduled, good and failed when they ended",
    )


def _counts(label: str, role: str, counts: Mapping[int, int], span: range, width_s: int) -> Series:
    points: list[Point] = [(number * width_s, counts.get(number, 0) / width_s) for number in span]
    points.append((span.stop * width_s, points[-1][1]))  # a step lasts to the end of its interval
    return Series(label=label, role=role, points=thin(points), stepped=True)


def _in_flight(requests: duckdb.DuckDBPyConnection, t0_ns: int) -> Panel:
    both = "t_sent_ns IS NOT NULL AND t_end_ns IS NOT NULL"
    found = requests.execute(
        f"SELECT count(*), max(t_end_ns) - min(t_sent_ns) FROM requests WHERE {both}"  # noqa: S608
    ).fetchall()
    count, span_ns = found[0]
    step_ns = 1 if count <= _EXACT_MAX else max(1, span_ns // _STEPS)
    begun, ended = (f"({column} - {t0_ns}) // {step_ns}" for column in ("t_sent_ns", "t_end_ns"))
    levels = f"""
        SELECT 'in flight' AS line, (step + 1) * {step_ns} - 1 + {t0_ns} AS t_ns,
            CAST(sum(change) OVER (ORDER BY step) AS DOUBLE) AS v
        FROM (SELECT step, sum(change) AS change FROM (
            SELECT {begun} AS step, 1 AS change FROM requests WHERE {both}
            UNION ALL SELECT {ended}, -1 FROM requests WHERE {both}) GROUP BY step)
    """  # noqa: S608
    points = thinned_lines(requests, levels, t0_ns=t0_ns, has_gaps=False).get("in flight", ())
    return Panel(
        name="in_flight",
        title="Requests in flight",
        unit="",
        series=(Series(label="in flight", role="main", points=points, stepped=True),),
        note="" if step_ns == 1 else f"as at the end of each {step_ns / 1e6:.3g} ms",
    )


def _ttfts(requests: duckdb.DuckDBPyConnection, t0_ns: int, width_s: int) -> Found:
    values = f"""
        SELECT {_interval("t_sent_ns", t0_ns, width_s)} AS number, (t_first_ns - t_sent_ns) / 1e6 AS v
        FROM requests WHERE t_sent_ns IS NOT NULL AND t_first_ns IS NOT NULL
    """  # noqa: S608
    return _by_class(requests, values, (0.5, 0.95))


def _gaps(requests: duckdb.DuckDBPyConnection, t0_ns: int, width_s: int) -> Found:
    """Return the percentiles of the gaps that ended in each interval.

    Most answers begin and end in one interval. Of the others, a gap ends when those before it are over, and a
    window over each request would sort a hundred million of them: sums over all rows as they stream by need
    no order. What the gaps before this request came to is taken off again; that the two go in step is checked
    on every row.
    """
    begun, ended = (
        _interval(t_ns, t0_ns, width_s) for t_ns in ("t_first_ns", "t_first_ns + 1000 * together")
    )
    answers = """(SELECT t_first_ns, gaps_us, CAST(list_sum(gaps_us) AS BIGINT) AS together FROM requests
        WHERE t_first_ns IS NOT NULL AND len(gaps_us) > 0)"""
    values = f"""
        SELECT number, gap / 1000 AS v, true AS is_in_step FROM (
            SELECT {begun} AS number, unnest(gaps_us) AS gap FROM {answers} WHERE {begun} = {ended})
        UNION ALL
        SELECT {_interval("t_first_ns + 1000 * CAST(since AS BIGINT)", t0_ns, width_s)} AS number,
            gap / 1000 AS v, since BETWEEN gap AND together AS is_in_step
        FROM (SELECT *, sum(gap) OVER (ROWS UNBOUNDED PRECEDING) - base AS since FROM (
            SELECT t_first_ns, base, together, CAST(unnest(gaps_us) AS DOUBLE) AS gap FROM (
                SELECT *, sum(CAST(together AS DOUBLE)) OVER (ROWS UNBOUNDED PRECEDING) - together AS base
                FROM {answers} WHERE {begun} <> {ended})))
    """  # noqa: S608
    return _by_class(requests, values, (0.5, 0.99), is_in_step="bool_and(is_in_step)")


def _by_class(
    requests: duckdb.DuckDBPyConnection, values: str, shares: Sequence[float], *, is_in_step: str = "true"
) -> Found:
    """Return the percentiles of each interval from the counts of its classes.

    Raises:
        duckdb.Error: rows came in another order than they were summed in.
    """
    wanted = ", ".join(
        f"min(top) FILTER (upto >= greatest(1, ceil({share} * total))) AS p{place}"
        for place, share in enumerate(shares)
    )
    rows = requests.execute(
        f"""
        WITH classes AS (
            SELECT number, CAST(floor(ln(greatest(v, 1e-3)) * {_PER_E}) AS SMALLINT) AS class,
                count(*) AS n, max(v) AS top, {is_in_step} AS is_in_step
            FROM ({values}) GROUP BY number, class
        ),
        ranked AS (
            SELECT number, top, is_in_step, sum(n) OVER (PARTITION BY number ORDER BY class) AS upto,
                sum(n) OVER (PARTITION BY number) AS total FROM classes
        )
        SELECT number, bool_and(is_in_step), {wanted} FROM ranked GROUP BY number
        """  # noqa: S608
    ).fetchall()
    if not all(row[1] for row in rows):
        raise duckdb.Error("gaps came in another order than they were summed in; report this")
    return {number: tuple(found) for number, _, *found in rows}


def _lag(requests: duckdb.DuckDBPyConnection, t0_ns: int, width_s: int, per: str) -> Panel:
    rows = requests.execute(
        f"SELECT {_interval(_END, t0_ns, width_s)} AS number, max(lag_ms_max) FROM requests"  # noqa: S608
        " WHERE lag_ms_max IS NOT NULL GROUP BY number"
    ).fetchall()
    return Panel(
        name="client_lag",
        title=f"Longest wait of received data for this client, per {per}",
        unit="ms",
        series=(Series(label="client lag", role="main", points=thin(_middles(dict(rows), width_s))),),
        note="how far latencies of this run can be trusted",
    )


def _percentiles(name: str, title: str, found: Found, width_s: int, shares: Sequence[float]) -> Panel:
    series = tuple(
        Series(
            label=f"p{share * 100:g}",
            role=role,
            points=thin(_middles({number: values[place] for number, values in found.items()}, width_s)),
        )
        for place, (share, role) in enumerate(zip(shares, ("second", "main"), strict=True))
    )
    return Panel(name=name, title=title, unit="ms", series=series)


def _middles(values: Mapping[int, float], width_s: int) -> list[Point]:
    """Return one point in the middle of each interval; an interval without values is a gap."""
    if not values:
        return []
    return [((number + 0.5) * width_s, values.get(number)) for number in range(min(values), max(values) + 1)]

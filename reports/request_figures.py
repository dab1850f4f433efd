"""Figures over all requests of a run by SQL, however many there are: distributions, failures, counts.

Percentiles of the whole run are order statistics, values that were really measured. Beside them stands how
many values fall into each class of a logarithmic scale, twenty to a decade, for a drawing of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from probes.metric import ITL, METRICS
from reports.text import one_line

SHARES = (0.5, 0.9, 0.95, 0.99)
CLASSES_PER_DECADE = 20
FAILURES_MAX = 40
# What ``METRICS`` reads of one request, as SQL in milliseconds; a test holds the two against each other.
METRIC_SQL = {
    "ttft_ms": "(t_first_ns - t_sent_ns) / 1e6",
    "ttft_from_schedule_ms": "(t_first_ns - t_intended_ns) / 1e6",
    "tpot_ms": "CASE WHEN coalesce(tokens_out, events) > 1 THEN"
    " (t_last_ns - t_first_ns) / 1e6 / (coalesce(tokens_out, events) - 1) END",
    "e2e_ms": "(t_end_ns - t_sent_ns) / 1e6",
    "e2e_from_schedule_ms": "(t_end_ns - t_intended_ns) / 1e6",
}
_CLASS = f"CAST(floor(log10(greatest(v, 1e-3)) * {CLASSES_PER_DECADE}) AS SMALLINT)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The distribution of one metric over a run."""

    metric: str
    meaning: str
    unit: str
    count: int
    values: dict[str, float]  # "p50" -> value
    classes: tuple[tuple[int, int], ...] = ()  # class of the logarithmic scale, and how many values it holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One kind of failed request, with an example of what the client saw."""

    error: str
    count: int
    status: int | None
    example: str


def class_begin(number: int) -> float:
    """Return where a class of the logarithmic scale begins."""
    return float(10 ** (number / CLASSES_PER_DECADE))


def read_count(requests: duckdb.DuckDBPyConnection) -> int:
    """Return how many requests there are."""
    return int(requests.execute("SELECT count(*) FROM requests").fetchall()[0][0])


def read_latencies(requests: duckdb.DuckDBPyConnection) -> list[Latency]:
    """Return each metric's distribution over the requests that were answered whole."""
    found = (
        _read_gaps(requests) if name == ITL else _read_spans(requests, METRIC_SQL[name]) for name in METRICS
    )
    return [
        Latency(
            metric=metric.name,
            meaning=metric.meaning,
            unit=metric.unit,
            count=sum(count for _, count in classes),
            values=dict(zip((*(f"p{share * 100:g}" for share in SHARES), "max"), values, strict=True)),
            classes=tuple(classes),
        )
        for metric, (values, classes) in zip(METRICS.values(), found, strict=True)
        if classes
    ]


def _read_spans(
    requests: duckdb.DuckDBPyConnection, metric: str
) -> tuple[Sequence[float], list[tuple[int, int]]]:
    shares = ", ".join(map(str, (*SHARES, 1.0)))
    query = f"""
        SELECT quantile_disc(v, [{shares}]), histogram({_CLASS})
        FROM (SELECT {metric} AS v FROM requests WHERE error IS NULL) WHERE v IS NOT NULL
    """  # noqa: S608
    values, classes = requests.execute(query).fetchall()[0]
    return values or (), sorted((classes or {}).items())


def _read_gaps(requests: duckdb.DuckDBPyConnection) -> tuple[Sequence[float], list[tuple[int, int]]]:
    """Gaps are whole microseconds and come by the hundred million: counted is how often each length comes."""
    shares = ", ".join(f"greatest(1, ceil({share} * total))" for share in (*SHARES, 1.0))
    query = f"""
        WITH counted AS MATERIALIZED (
            SELECT gap, count(*) AS n FROM (SELECT unnest(gaps_us) AS gap FROM requests WHERE error IS NULL)
            GROUP BY gap
        ),
        ranked AS (SELECT gap, sum(n) OVER (ORDER BY gap) AS upto, sum(n) OVER () AS total FROM counted),
        wanted AS (SELECT unnest([{shares}]) AS rank FROM (SELECT sum(n) AS total FROM counted))
        SELECT (SELECT list(value ORDER BY rank) FROM (
                SELECT rank, min(gap) / 1000 AS value FROM wanted JOIN ranked ON upto >= rank GROUP BY ALL)),
            (SELECT list((class, n) ORDER BY class) FROM (
                SELECT {_CLASS} AS class, sum(n) AS n FROM (SELECT gap / 1000 AS v, n FROM counted)
                GROUP BY class))
    """  # noqa: S608
    values, classes = requests.execute(query).fetchall()[0]
    if not classes:
        return (), []
    while len(values) < len(SHARES) + 1:  # ranks of so few values that several are one
        values = [values[0], *values]
    return values, [(int(number), int(count)) for number, count in classes]


def read_failures(requests: duckdb.DuckDBPyConnection) -> list[Failure]:
    """Return the kinds of failed requests, the most frequent first, each with its first example."""
    rows = requests.execute(
        f"""
        SELECT error, count(*), arg_min((status, error_detail), (t_intended_ns, index)) FROM requests
        WHERE error IS NOT NULL GROUP BY error ORDER BY 2 DESC, min(t_intended_ns) LIMIT {FAILURES_MAX}
        """  # noqa: S608
    ).fetchall()
    return [
        Failure(error=error, count=count, status=first[0], example=one_line(first[1] or "", 200))
        for error, count, first in rows
    ]

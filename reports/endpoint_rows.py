"""A row for each endpoint of a load test on several: its part, what failed there, how fast it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb

from probes.outcome import Outcome, worst
from reports.request_figures import METRIC_SQL
from reports.run import Run

_ENDPOINT = "endpoint:"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    """What came of one endpoint."""

    name: str
    url: str
    outcome: Outcome | None  # of the findings about it; None: there are none
    planned: int  # by the schedule
    sent: int  # there in the end: planned less what fail-over moved away, and what it moved here
    failed: int
    ttft_ms_p50: float | None  # None: nothing was answered whole
    ttft_ms_p99: float | None
    e2e_ms_p99: float | None

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts, in the order of ``HEAD``."""
        times = (self.ttft_ms_p50, self.ttft_ms_p99, self.e2e_ms_p99)
        return (
            self.name,
            str(self.outcome or "–"),
            f"{self.planned:,}",
            f"{self.sent:,}",
            f"{self.failed:,}",
            *("–" if time is None else f"{time:.0f}" for time in times),
        )


HEAD = ("endpoint", "verdict", "planned", "sent", "failed", "TTFT p50 ms", "TTFT p99 ms", "E2E p99 ms")


def endpoint_rows(run: Run, requests: duckdb.DuckDBPyConnection) -> list[EndpointRow]:
    """Return a row for each endpoint, in the order of the workload; none where there is only one."""
    names = list(dict.fromkeys(_named(run)))
    planned = dict(_grouped(requests, "endpoint_planned", "count(*)"))
    there = {name: found for name, *found in _grouped(requests, "endpoint_name", _FIGURES)}
    names += sorted(name for name in there.keys() | planned.keys() if name not in names)
    return [_row(run, name, int(planned.get(name, 0)), there.get(name, _NOTHING)) for name in names]


_GOOD = "FILTER (error IS NULL)"
_FIGURES = f"""arg_min(endpoint, (t_intended_ns, index)), count(*),
    count(*) FILTER (error IS NOT NULL AND NOT coalesce(is_hung_up, false)),
    quantile_disc({METRIC_SQL["ttft_ms"]}, [0.5, 0.99]) {_GOOD},
    quantile_disc({METRIC_SQL["e2e_ms"]}, 0.99) {_GOOD}
"""
_NOTHING: list[Any] = ["", 0, 0, None, None]


def _grouped(requests: duckdb.DuckDBPyConnection, column: str, figures: str) -> list[tuple[Any, ...]]:
    query = f"SELECT {column}, {figures} FROM requests WHERE {column} IS NOT NULL GROUP BY {column}"  # noqa: S608
    return requests.execute(query).fetchall()


def _named(run: Run) -> list[str]:
    listed = run.header.spec.get("endpoints")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return [str(row["name"]) for row in rows if row.get("name")]


def _row(run: Run, name: str, planned: int, found: list[Any]) -> EndpointRow:
    url, sent, failed, ttft_ms, e2e_ms = found
    subject = f"{_ENDPOINT}{name}"
    outcomes = [
        finding.outcome
        for finding in run.findings
        if finding.counts
        and finding.outcome is not None
        and (finding.subject == subject or finding.subject.endswith(f"@{subject}"))
    ]
    ttft_ms_p50, ttft_ms_p99 = ttft_ms or (None, None)
    return EndpointRow(
        name=name,
        url=url or "",
        outcome=worst(outcomes) if outcomes else None,
        planned=planned,
        sent=sent,
        failed=failed,
        ttft_ms_p50=ttft_ms_p50,
        ttft_ms_p99=ttft_ms_p99,
        e2e_ms_p99=e2e_ms,
    )

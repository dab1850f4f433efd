"""A row for each endpoint of a load test on several: its part, what failed there, how fast it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.outcome import Outcome, worst
from probes.request import Request
from probes.slo import METRICS, percentile
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


def endpoint_rows(run: Run, requests: Sequence[Request]) -> list[EndpointRow]:
    """Return a row for each endpoint, in the order of the workload; none where there is only one."""
    names = list(dict.fromkeys(_named(run)))
    there = {row.endpoint_name for row in requests} | {row.endpoint_planned for row in requests}
    names += sorted(name for name in there if name is not None and name not in names)
    return [_row(run, name, requests) for name in names]


def _named(run: Run) -> list[str]:
    listed = run.header.spec.get("endpoints")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return [str(row["name"]) for row in rows if row.get("name")]


def _row(run: Run, name: str, requests: Sequence[Request]) -> EndpointRow:
    own = [row for row in requests if row.endpoint_name == name]
    good = [row for row in own if row.is_good]
    subject = f"{_ENDPOINT}{name}"
    outcomes = [
        finding.outcome
        for finding in run.findings
        if finding.counts
        and finding.outcome is not None
        and (finding.subject == subject or finding.subject.endswith(f"@{subject}"))
    ]
    ttfts = [value for row in good for value in METRICS["ttft_ms"].read(row)]
    ends = [value for row in good for value in METRICS["e2e_ms"].read(row)]
    return EndpointRow(
        name=name,
        url=own[0].endpoint if own else "",
        outcome=worst(outcomes) if outcomes else None,
        planned=sum(row.endpoint_planned == name for row in requests),
        sent=len(own),
        failed=sum(row.error is not None and not row.is_hung_up for row in own),
        ttft_ms_p50=percentile(ttfts, 0.5) if ttfts else None,
        ttft_ms_p99=percentile(ttfts, 0.99) if ttfts else None,
        e2e_ms_p99=percentile(ends, 0.99) if ends else None,
    )

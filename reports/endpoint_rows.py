"""A row for each endpoint of a load test on several: its part, what failed there, how fast it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.distribution import Distribution
from probes.outcome import Outcome, worst
from probes.request import Request
from probes.request_columns import keep, of, values_of
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
    there = {name for names in of(requests, "endpoint_name", "endpoint_planned") for name in names}
    names += sorted(name for name in there if name is not None and name not in names)
    return [_row(run, name, requests) for name in names]


def _named(run: Run) -> list[str]:
    listed = run.header.spec.get("endpoints")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return [str(row["name"]) for row in rows if row.get("name")]


def _row(run: Run, name: str, requests: Sequence[Request]) -> EndpointRow:
    own = keep(requests, "endpoint_name", where=lambda endpoint: endpoint == name)
    subject = f"{_ENDPOINT}{name}"
    outcomes = [
        finding.outcome
        for finding in run.findings
        if finding.counts
        and finding.outcome is not None
        and (finding.subject == subject or finding.subject.endswith(f"@{subject}"))
    ]
    ttfts, ends = Distribution("ttft_ms", own), Distribution("e2e_ms", own)
    return EndpointRow(
        name=name,
        url=own[0].endpoint if own else "",
        outcome=worst(outcomes) if outcomes else None,
        planned=sum(planned == name for planned in values_of(requests, "endpoint_planned")),
        sent=len(own),
        failed=sum(e is not None and not is_hung_up for e, is_hung_up in of(own, "error", "is_hung_up")),
        ttft_ms_p50=ttfts.at_share(0.5) if ttfts else None,
        ttft_ms_p99=ttfts.at_share(0.99) if ttfts else None,
        e2e_ms_p99=ends.at_share(0.99) if ends else None,
    )

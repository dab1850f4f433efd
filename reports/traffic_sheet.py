"""What a report says of a run's requests, read once by SQL: panels, distributions, failures, endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from probes.errors import RecordError, SuiteError
from reports.endpoint_rows import EndpointRow, endpoint_rows
from reports.panel import Panel
from reports.record import REQUESTS_FOLDER
from reports.request_figures import Failure, Latency, read_count, read_failures, read_latencies
from reports.request_table import open_requests
from reports.run import Run, load_run
from reports.traffic import traffic_panels

_CHILD = "load"  # the run of the traffic, inside a game day's


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the requests came to."""

    panels: tuple[Panel, ...] = ()
    problem: str = ""  # why they cannot be read; empty: they can
    requests: int = 0
    latencies: tuple[Latency, ...] = ()
    failures: tuple[Failure, ...] = ()
    endpoints: tuple[EndpointRow, ...] = ()  # of a load on several


def read_traffic(run: Run, *, is_drawn: bool = True) -> Traffic:
    """Read the requests of a run, or of the load test inside it; what is only drawn, where it is wanted."""
    folder, child = traffic_folder(run), child_of(run)
    if not any((folder / REQUESTS_FOLDER).glob("*.*")):
        return Traffic()
    try:
        with open_requests(folder) as requests:
            endpoints = tuple(endpoint_rows(child or run, requests))
            if not is_drawn:
                return Traffic(requests=read_count(requests), endpoints=endpoints)
            return Traffic(
                panels=tuple(traffic_panels(requests, run.header.started_ns)),
                requests=read_count(requests),
                latencies=tuple(read_latencies(requests)),
                failures=tuple(read_failures(requests)),
                endpoints=endpoints,
            )
    except RecordError as error:
        return Traffic(problem=str(error))


def traffic_folder(run: Run) -> Path:
    """Return the folder whose ``requests/`` holds this run's traffic."""
    own = any((run.path / REQUESTS_FOLDER).glob("*.*"))
    return run.path if own or not (run.path / _CHILD).is_dir() else run.path / _CHILD


def child_of(run: Run) -> Run | None:
    """Return the load test that ran inside this run; None: there is none, or it cannot be opened."""
    folder = traffic_folder(run)
    try:
        return load_run(folder) if folder != run.path else None
    except SuiteError:
        return None

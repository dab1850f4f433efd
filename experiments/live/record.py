"""The record of a game day while it grows: as judging reads it later, but each row once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.evidence import LOAD_FOLDER, read_faults
from experiments.impact.recovery import LAB_SERIES, Times, end_of, find_times
from experiments.kube.api.judging import noticed_by_watch
from experiments.kube.watching.samples import API_SERIES, KUBE_SERIES
from probes.json_types import JsonObject
from probes.request import Request, request_from_json
from probes.slo import Slo
from probes.tail import Tail
from reports.record import REQUESTS_FOLDER, SERIES_FOLDER
from reports.run import load_run


class LiveRecord:
    """What has been recorded so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[Path, Tail] = {}
        series = (LAB_SERIES, KUBE_SERIES)  # of a game day there is one of them
        self._series = [Tail(folder / SERIES_FOLDER / f"{name}.ndjson") for name in series]
        self._requests: list[Request] = []
        self._samples: list[JsonObject] = []
        self._api = Tail(folder / SERIES_FOLDER / f"{API_SERIES}.ndjson")
        self._api_rows: list[JsonObject] = []

    def requests(self) -> list[Request]:
        """Return every request that is over, by intended time."""
        for path in sorted((self._folder / LOAD_FOLDER / REQUESTS_FOLDER).glob("*.ndjson")):
            rows = self._parts.setdefault(path, Tail(path)).read()
            self._requests += [request_from_json(r) for r in rows if r.get("t_intended_ns") is not None]
        self._requests.sort(key=lambda request: (request.t_intended_ns, request.index))
        return self._requests

    def times(self, slos: Sequence[Slo]) -> Times | None:
        """Derive the faults' moments as judging will from the whole record; None: nothing was injected."""
        self._samples += [row for tail in self._series for row in tail.read()]
        self._api_rows += self._api.read()
        faults = read_faults(load_run(self._folder))
        if not faults:
            return None
        requests = self.requests()
        t_end_ns = max((end_of(request) for request in requests), default=0)
        times = find_times(requests, self._samples, faults=faults, t_end_ns=t_end_ns, slos=slos)
        return noticed_by_watch(times, self._api_rows)

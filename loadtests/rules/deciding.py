"""Ends a load once every promise is decided; how often it looks makes no verdict less sure.

Looked at are the requests up to the first that has not ended yet: those that ended after it came back before
it, and would make the service look faster than it is.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from loadtests.rules.endpoint_judging import groups_of, read_outages
from loadtests.spec.workload import Workload
from probes.request import Request
from probes.request_columns import pick, values_of
from probes.slo import is_decided
from probes.warm_up import WarmUp, leave_out
from reports.run import load_run
from reports.table import read_columns

DECIDED = "load.decided"
_GROWTH = 1.25  # of the time to the next look: each look reads all rows


class Looks:
    """When a run is looked at next, and whether it is over."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._next_s = workload.first_look_s

    def is_over(self, run: Path, elapsed_s: float) -> bool:
        """Whether all is decided; looks only when it is time to."""
        if self._next_s is None or elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s * _GROWTH
        requests = read_columns(run)
        settled = leave_out(ended_so_far(requests), self._workload.warm_up or WarmUp())
        outages = read_outages(load_run(run).events, requests) if self._workload.fail_over is not None else []
        groups = groups_of(self._workload, settled.requests, outages, whole="")
        return is_decided(self._workload.slos, [(group.phase, group.requests) for group in groups])


def ended_so_far(requests: Sequence[Request]) -> Sequence[Request]:
    """Return the requests up to the first of the schedule that has no row yet."""
    indexes = array("q", values_of(requests, "index"))
    order = array("I", sorted(range(len(indexes)), key=indexes.__getitem__))
    wanted = enumerate(indexes[position] for position in order)
    count = next((expected for expected, index in wanted if index != expected), len(order))
    return pick(requests, order[:count])

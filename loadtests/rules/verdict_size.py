"""How many requests the verdict of a workload needs, and how long that takes: told before the load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

from loadtests.spec.workload import Workload
from loadtests.traffic.arrivals import schedule
from probes.dependence import inflation_of_neighbours
from probes.sample_size import CORRELATIONS, requests_needed, samples_needed

EVENT = "load.verdict_size"
_COUNTED_MAX = 100_000  # of a longer schedule, the rest is taken to be alike


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictSize:
    """What one promise needs. ``windows`` says that stretches of time are counted, not requests."""

    slo: str
    at_least: int  # not one breach among them, and none like its neighbours
    needed: tuple[int, ...]  # requests that decide, for neighbours that correlate as in CORRELATIONS
    seconds: tuple[
        float | None, ...
    ]  # the same as time at this rate; None: the rate follows from the answers
    is_windows: bool


def verdict_sizes(workload: Workload, *, requests: int | None) -> list[VerdictSize]:
    """Return it for each promise; ``requests`` is how many the schedule has, None: not known before."""
    found = []
    groups = 1 + len(workload.endpoints) if workload.has_several else 1  # each endpoint, and the whole
    for slo in workload.slos:
        smallest = 1.0 if slo.window is not None else _smallest_part(workload)
        counts = tuple(
            math.ceil(
                requests_needed(
                    slo,
                    inflation=inflation_of_neighbours(rho, slo.allowed),
                    promises=len(workload.slos) * groups,
                    is_peeked=workload.first_look_s is not None,
                )
                / smallest
            )
            for rho in CORRELATIONS
        )
        per_s = None if not requests else requests / workload.duration_s
        if slo.window is not None:
            per_s = 1 / slo.window.length_s
        found.append(
            VerdictSize(
                slo=slo.name,
                at_least=math.ceil(samples_needed(1 - slo.allowed, slo.confidence) / smallest),
                needed=counts,
                seconds=tuple(None if per_s is None else count / per_s for count in counts),
                is_windows=slo.window is not None,
            )
        )
    return found


def _smallest_part(workload: Workload) -> float:
    """Return the part of the arrivals that the endpoint with the fewest of them gets: it decides last."""
    weights = [endpoint.weight for endpoint in workload.endpoints]
    return min(weights) / sum(weights)


def count_requests(workload: Workload, *, seed: int) -> int | None:
    """Return how many requests the schedule has; None: the answers decide that."""
    if workload.is_chained:
        return None
    count, last_s = 0, 0.0
    arrivals = schedule(workload.arrivals, duration_s=workload.duration_s, seed=seed)
    for arrival in islice(arrivals, _COUNTED_MAX):
        count, last_s = count + 1, arrival.at_s
    return count if count < _COUNTED_MAX else round(count * workload.duration_s / last_s)


def render_sizes(sizes: list[VerdictSize]) -> list[str]:
    """Return one line for each promise."""
    lines = []
    for size in sizes:
        what = "stretches" if size.is_windows else "requests"
        parts = [
            f"{count} {what}" + ("" if seconds is None else f" ({seconds:.0f} s)")
            for count, seconds in zip(size.needed, size.seconds, strict=True)
        ]
        lines.append(
            f"{size.slo}: {parts[0]} decide a truth 20 % off the limit; {parts[1]} where "
            f"neighbours correlate by {CORRELATIONS[1]:g}, {parts[2]} by {CORRELATIONS[2]:g}"
        )
    return lines

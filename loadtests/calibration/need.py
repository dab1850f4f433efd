"""What a workload will ask of its client, as far as one can tell before: events a second, streams at once."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from itertools import islice

from loadtests.spec.workload import Workload
from loadtests.traffic.arrivals import Arrivals, schedule
from loadtests.traffic.prompts import Prompts
from loadtests.traffic.rates import Wave

EVENTS_PER_S_MIN = 2000.0
EVENTS_PER_S_MAX = 120_000.0  # what the golden endpoint sends from one core
STREAMS_MIN, STREAMS_MAX = 64, 1500
_MARGIN = 2.0
_DRAWN = 200  # prompts, of which the mean length of answers is taken
_USER_EVENTS_PER_S = 100.0  # what a fast server sends to one user of a closed loop
# A server that is slow, but worth measuring: before its first event, and between two.
_FIRST_S, _GAP_S = 2.0, 0.05
_TRACE_ROWS_MAX = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one load process is to be certified for."""

    events_per_s: float
    streams: int
    tokens: int  # of a usual answer
    is_tls: bool = False  # whether any of it is read by TLS


def need_of(workload: Workload, *, seed: int, workers: int = 1) -> Need:
    """Return what each of so many load processes needs, with a margin."""
    tokens = _mean_output_tokens(workload, seed=seed)
    closed = workload.arrivals.closed
    if closed is not None:
        events_per_s, streams = closed.users * _USER_EVENTS_PER_S, float(closed.users)
    else:
        rate = _peak_per_s(workload, seed=seed) * _mean_turns(workload)
        events_per_s, streams = rate * tokens, rate * (_FIRST_S + tokens * _GAP_S)
    said = workload.calibration
    events_per_s = said.events_per_s or max(EVENTS_PER_S_MIN, _MARGIN * events_per_s)
    wanted = said.streams or max(STREAMS_MIN, math.ceil(_MARGIN * streams))
    streams_each = math.ceil(min(wanted, workload.in_flight_max * len(workload.endpoints)) / workers)
    return Need(
        events_per_s=min(EVENTS_PER_S_MAX, events_per_s / workers),
        streams=max(1, min(STREAMS_MAX, streams_each)),
        tokens=tokens,
        is_tls=any((one.spec.url or "").startswith("https:") for one in workload.endpoints),
    )


def _mean_output_tokens(workload: Workload, *, seed: int) -> int:
    prompts = Prompts(workload.prompts, seed=seed)
    arrivals = islice(schedule(workload.arrivals, duration_s=workload.duration_s, seed=seed), _DRAWN)
    drawn = [prompts.prompt(n, row=arrival.row).output_tokens for n, arrival in enumerate(arrivals)]
    prompts.close()
    return max(1, math.ceil(statistics.mean(drawn))) if drawn else 1


def _mean_turns(workload: Workload) -> float:
    return 1.0 if workload.session is None else max(1.0, workload.session.turns.mean)


def _peak_per_s(workload: Workload, *, seed: int) -> float:
    """Return how many arrivals the busiest second may bring."""
    arrivals = workload.arrivals
    if arrivals.trace is not None:
        return _peak_of_trace(workload, seed=seed)
    if isinstance(arrivals.rate, Wave):
        peak = arrivals.rate.mean_per_s * (1 + arrivals.rate.swing)
    else:
        peak = max(max(piece.from_per_s, piece.to_per_s) for piece in arrivals.rate)
    return peak + 3 * _spread(arrivals) * math.sqrt(peak)


def _spread(arrivals: Arrivals) -> float:
    """Return how bursty arrivals are: the standard deviation of a gap, over its mean."""
    return 0.0 if arrivals.process == "constant" else math.sqrt(1 / arrivals.shape)


def _peak_of_trace(workload: Workload, *, seed: int) -> float:
    counts: dict[int, int] = {}
    arrivals = schedule(workload.arrivals, duration_s=workload.duration_s, seed=seed)
    for arrival in islice(arrivals, _TRACE_ROWS_MAX):
        counts[int(arrival.at_s)] = counts.get(int(arrival.at_s), 0) + 1
    return float(max(counts.values(), default=1))

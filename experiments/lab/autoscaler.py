"""How many replicas the lab wants: the policy of an autoscaler, and the ways in which one fails.

A model without clock or process: the lab asks it several times a second, and starts and ends real replicas.
The signal is the mean number of requests under way at the gateway: concurrency, as with Knative or KEDA.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

FAULTS = {
    "never-up": "more requests start no replica",
    "late-up": "replicas are started only after ten times --scale-up-s",
    "never-down": "no replica is ever released",
    "flap": "replicas that are needed are released and started again, every few seconds",
}
LATE_FACTOR = 10.0
FLAP_S = 8.0
AVERAGE_S = 2.0  # one moment's burst is no reason to start a replica, nor to keep one


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePlan:
    """When replicas are added and released."""

    replicas_min: int
    replicas_max: int
    in_flight_target: int = 6  # requests per replica
    up_s: float = 2.0  # more must be needed for so long
    down_s: float = 10.0  # fewer must be needed for so long
    fault: str = ""  # one of FAULTS; empty: none


class Autoscaler:
    """Remembers for how long more replicas have been needed than are wanted, and what was needed lately."""

    def __init__(self, plan: ScalePlan) -> None:
        self._plan = plan
        self._high_since: float | None = None  # None: no more are needed
        self._needs: deque[tuple[float, int]] = deque()  # (when, replicas needed) of the last down_s
        self._flapped_at = 0.0
        self._seen: deque[tuple[float, int]] = deque()  # (when, requests under way) of the last AVERAGE_S

    def want(self, *, now_s: float, in_flight: int, wanted: int) -> int:
        """Return how many replicas there are to be now."""
        plan = self._plan
        mean = self._average(now_s, in_flight)
        needed = max(plan.replicas_min, min(plan.replicas_max, math.ceil(mean / plan.in_flight_target)))
        if plan.fault == "flap" and needed > plan.replicas_min:
            return self._flap(now_s, needed, wanted)
        released_to = self._shrink(now_s, needed, wanted)
        if needed > wanted:
            return self._grow(now_s, needed, wanted)
        self._high_since = None
        return released_to

    def _average(self, now_s: float, in_flight: int) -> float:
        self._seen.append((now_s, in_flight))
        while self._seen[0][0] < now_s - AVERAGE_S:
            self._seen.popleft()
        return sum(count for _, count in self._seen) / len(self._seen)

    def _grow(self, now_s: float, needed: int, wanted: int) -> int:
        self._high_since = now_s if self._high_since is None else self._high_since
        delay_s = self._plan.up_s * (LATE_FACTOR if self._plan.fault == "late-up" else 1.0)
        if self._plan.fault == "never-up" or now_s - self._high_since < delay_s:
            return wanted
        self._high_since = None
        return needed

    def _shrink(self, now_s: float, needed: int, wanted: int) -> int:
        """Release what has not been needed at any moment of the last ``down_s``."""
        self._needs.append((now_s, needed))
        while self._needs[0][0] < now_s - self._plan.down_s:
            self._needs.popleft()
        if self._plan.fault == "never-down":
            return wanted
        return min(wanted, max(count for _, count in self._needs))

    def _flap(self, now_s: float, needed: int, wanted: int) -> int:
        if now_s - self._flapped_at < FLAP_S:
            return wanted
        self._flapped_at = now_s
        return self._plan.replicas_min if wanted > self._plan.replicas_min else needed

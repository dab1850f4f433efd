"""Which endpoint an arrival goes to: by weight, and the same for anybody who knows the seed.

Arrivals of an open loop go by lot, each by itself: a part of a Poisson process is one again. The users of a
closed loop are few and stay, so they are dealt out evenly, as near to the weights as their number allows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence

from loadtests.spec.workload import Workload
from loadtests.traffic.arrivals import CHAIN_STRIDE

# Multiples of it, modulo 1, are spread evenly however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


class Routes:
    """Where each request of one workload is planned to go, as a position among its endpoints."""

    def __init__(self, workload: Workload, *, seed: int) -> None:
        self._weights = [endpoint.weight for endpoint in workload.endpoints]
        self._is_even = workload.arrivals.closed is not None
        self._stride = CHAIN_STRIDE if workload.is_chained else 1
        self._seed = seed
        self._begin = random.Random(f"endpoint:{seed}").random()

    def planned(self, index: int) -> int:
        """Return the endpoint that the seed wants for a request; all of a user or conversation have one."""
        if len(self._weights) == 1:
            return 0
        number = index // self._stride
        if self._is_even:
            point = (self._begin + number * _GOLDEN) % 1.0
        else:
            point = random.Random(f"endpoint:{self._seed}:{number}").random()
        return _at(point, self._weights)

    def instead(self, index: int, lost: Collection[int]) -> int:
        """Return which other endpoint takes it while some are lost: by weight, one for a conversation."""
        chance = random.Random(f"endpoint-instead:{self._seed}:{index // self._stride}")
        weights = [0.0 if place in lost else weight for place, weight in enumerate(self._weights)]
        return _at(chance.random(), weights)


def _at(point: float, weights: Sequence[float]) -> int:
    """Return the place whose stretch of the weights, laid end to end, holds this share of them."""
    left = point * sum(weights)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return place
    return max(place for place, weight in enumerate(weights) if weight)  # point just below 1, rounded

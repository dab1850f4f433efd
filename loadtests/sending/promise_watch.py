"""Says while a load runs whether a promise is broken for certain: a guard stops a load on its word.

It looks often, after 64 requests, 128, 256, ..., and keeps no request: only sixteen stretches of what came,
in whose differences it shows how much breaches come together.
"""

from __future__ import annotations

from probes.dependence import design_effect
from probes.share_test import chance_of_so_many

FIRST_LOOK = 64  # requests
SLOW_FIRST_LOOK = 256  # fewer may all lie within one burst of slow ones
_STRETCHES = 16
_TAKEN_TOGETHER = (1, 2, 4)  # stretches: where bursts are longer than one, the longer ones differ more
_DOUBT = 0.001  # of all looks together


class PromiseWatch:
    """The requests so far, in stretches of equal length."""

    def __init__(self, allowed: float) -> None:
        self.bad = self.total = 0
        self._allowed, self._failed, self._length = allowed, 0, FIRST_LOOK // _STRETCHES
        self._stretches = [0]

    def is_broken(self, *, is_bad: bool, has_failed: bool) -> bool:
        """Count a request; say whether, at the look that may be due with it, the promise is surely broken."""
        if self.total == self._length * len(self._stretches):
            self._stretches.append(0)
        self.total += 1
        self.bad += is_bad
        self._failed += has_failed
        self._stretches[-1] += is_bad
        if self.total < self._length * _STRETCHES:
            return False
        is_broken = self._chance() <= _DOUBT * FIRST_LOOK / (2 * self.total)  # 1/2, 1/4, 1/8, ... of it
        self._stretches = _joined(self._stretches, 2)
        self._length *= 2
        return is_broken

    def _chance(self) -> float:
        """Return the chance of so many at the limit; failures are facts, slow ones come together."""
        failed = chance_of_so_many(self._failed, self.total, allowed=self._allowed)
        if self.total < SLOW_FIRST_LOOK:
            return failed
        effect = max(
            design_effect(_joined(self._stretches, many), [self._length * many] * (_STRETCHES // many))
            for many in _TAKEN_TOGETHER
        )
        return min(failed, chance_of_so_many(self.bad / effect, self.total / effect, allowed=self._allowed))


def _joined(stretches: list[int], many: int) -> list[int]:
    return [sum(stretches[at : at + many]) for at in range(0, len(stretches), many)]

"""The client's own fail-over: when an endpoint counts as lost, and when as back. No clock and no socket here.

Each load process decides by what it sees itself, as a client of a service in several regions does. Nothing is
sent twice: a request that hit a lost endpoint has failed, and stays so.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.spec.endpoint import FailOverSpec
from probes.breaches import CLIENT_ERRORS
from probes.request import Request

# The endpoint itself ended it, so its time is when it ended; of the others, when the last sign of life came.
ENDED_BY_ENDPOINT = frozenset(
    (
        "refused",
        "connect_failed",
        "tls_failed",
        "closed",
        "reset",
        "truncated",
        "http_429",
        "http_5xx",
    )
)
# Why an endpoint may be gone. A wrong or slow answer is an answer.
AWAY = ENDED_BY_ENDPOINT | {"connect_timeout", "first_byte_timeout", "timeout"}
# Says nothing of the endpoint.
SILENT = CLIENT_ERRORS | {"dropped", "hung_up", "gave_up"}


class FailOver:
    """What one load process holds of each endpoint, by its place in the workload."""

    def __init__(self, spec: FailOverSpec, *, endpoints: int) -> None:
        self.lost: set[int] = set()
        self._spec, self._endpoints = spec, endpoints
        self._failed: list[list[Request]] = [[] for _ in range(endpoints)]  # in a row
        self._back_ns = [0] * endpoints

    @property
    def is_anybody_there(self) -> bool:
        """Whether there is an endpoint to go to; else each request goes where it was planned to go."""
        return len(self.lost) < self._endpoints

    def note(self, place: int, row: Request) -> Sequence[Request]:
        """Take a request that has ended; return what failed in a row, where that loses the endpoint.

        Requests of before it was back are passed over: they may end late.
        """
        if place in self.lost or row.error in SILENT or row.t_intended_ns < self._back_ns[place]:
            return ()
        failed = self._failed[place]
        if row.error not in AWAY:
            failed.clear()
            return ()
        failed.append(row)
        if len(failed) < self._spec.after_failures:
            return ()
        self._failed[place] = []
        self.lost.add(place)
        return failed

    def note_probe(self, place: int, row: Request, *, now_ns: int) -> bool:
        """Take the answer to a question at a lost endpoint; return whether it is back."""
        if row.error in AWAY or row.error in SILENT:
            return False
        self.lost.discard(place)
        self._back_ns[place] = now_ns
        return True

"""How often the hub looks at its sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import gevent
import pytest

from loadtests.reading.poll_clock import GATHER_S, READ, PollClock

SOCKETS = 8
SECONDS = 0.2


class Busy:
    """A hub whose sockets always have something to read, and how often it has served the first of them."""

    def __init__(self) -> None:
        self.looks = 0
        self.polls = PollClock()
        self._pairs = [socket.socketpair() for _ in range(SOCKETS)]
        for number, (ours, theirs) in enumerate(self._pairs):
            theirs.send(b"x")
            self.polls.watch(ours.fileno(), READ, self._count if number == 0 else lambda: None, self._fail)

    def _count(self) -> None:
        self.looks += 1

    def _fail(self, error: Exception) -> None:
        raise error

    def looks_per_s(self) -> float:
        """Return how often it looks in a second."""
        self.looks, began_s = 0, time.monotonic()
        gevent.sleep(SECONDS)
        return self.looks / (time.monotonic() - began_s)

    def close(self) -> None:
        """Close everything."""
        self.polls.close()
        for pair in self._pairs:
            for sock in pair:
                sock.close()


@pytest.fixture
def busy() -> Iterator[Busy]:
    hub = Busy()
    yield hub
    hub.close()


def test_a_busy_hub_lets_events_gather(busy: Busy) -> None:
    assert 0 < busy.looks_per_s() <= 1.1 / GATHER_S


def test_what_is_due_is_not_waited_for(busy: Busy) -> None:
    gathering = busy.looks_per_s()

    busy.polls.due_s = time.monotonic()  # now, and it stays so

    assert busy.looks_per_s() > 2 * gathering

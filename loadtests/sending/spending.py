"""What a load may spend: tokens and money, counted so that a budget is kept and not only noticed.

A request counts at its maximum before it is sent: no token is shorter than a byte, and no answer longer than
its limit. Once it has ended, the server's own ``usage`` takes that place, where it sent one.
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.json_types import JsonObject
from probes.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of prompts and of answers."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(sent=self.sent + other.sent, received=self.received + other.received)

    def __sub__(self, other: Tokens) -> Tokens:
        return Tokens(sent=self.sent - other.sent, received=self.received - other.received)

    def shared_by(self, workers: int) -> Tokens:
        """Return one worker's share, rounded up: together they hold at least the whole."""
        return Tokens(sent=-(-self.sent // workers), received=-(-self.received // workers))

    @property
    def total(self) -> int:
        """Return both together."""
        return self.sent + self.received


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a million tokens cost, in whatever currency the budget is in."""

    sent: float
    received: float

    def of(self, tokens: Tokens) -> float:
        """Return what these tokens cost."""
        return (tokens.sent * self.sent + tokens.received * self.received) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may spend at most."""

    tokens: int | None = None  # None: no limit
    money: float | None = None  # None: no limit
    prices: Prices | None = None  # None: money is not counted

    def breach(self, tokens: Tokens, *, workers: int) -> str:
        """Return which limit these tokens of one of several workers are above; empty: none."""
        if self.tokens is not None and tokens.total > self.tokens / workers:
            return "tokens"
        if self.money is not None and self.prices is not None:
            return "money" if self.prices.of(tokens) > self.money / workers else ""
        return ""


def most(*, body_bytes: int, output_tokens: int, choices: int) -> Tokens:
    """Return what one request may cost at most."""
    return Tokens(sent=body_bytes, received=output_tokens * choices)


def spent_on(row: Request, at_most: Tokens) -> Tokens:
    """Return what a request that has ended cost; what nobody tells counts at its maximum.

    One that was never sent, or was turned away before any token, cost nothing.
    """
    if row.t_sent_ns is None or (row.status is not None and row.status != 200):
        return Tokens()
    sent = at_most.sent if row.tokens_in is None else row.tokens_in
    received = at_most.received if row.tokens_out is None else row.tokens_out
    return Tokens(sent=sent, received=max(received, row.events))


class Spending:
    """What one worker has spent, and what may still come of requests under way."""

    def __init__(self, budget: Budget, *, workers: int = 1, spent: Tokens | None = None) -> None:
        self.spent = (spent or Tokens()).shared_by(workers)
        self.reserved = Tokens()
        self.most_committed = Tokens()  # the largest sum of both that there was
        self._budget = budget
        self._workers = workers
        self._under_way: dict[int, Tokens] = {}

    def admit(self, index: int, at_most: Tokens) -> str:
        """Count a request before it is sent; else return the limit that forbids it, and count nothing."""
        committed = self.spent + self.reserved + at_most
        breach = self._budget.breach(committed, workers=self._workers)
        if breach:
            return breach
        self._under_way[index] = at_most
        self.reserved = self.reserved + at_most
        if committed.total > self.most_committed.total:
            self.most_committed = committed
        return ""

    def settle(self, row: Request) -> None:
        """Put what a request did cost in the place of what it could have."""
        at_most = self._under_way.pop(row.index, None)
        if at_most is None:
            return
        self.reserved = self.reserved - at_most
        self.spent = self.spent + spent_on(row, at_most)

    def to_json(self) -> JsonObject:
        """Return the state of the account, for the record."""
        prices = self._budget.prices
        return {
            "tokens_in": self.spent.sent,
            "tokens_out": self.spent.received,
            "tokens_committed_max": self.most_committed.total,
            "money": None if prices is None else prices.of(self.spent),
        }

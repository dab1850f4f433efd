"""Watches a load while it runs, and says when to stop: budget, error storm, runaways, broken promise."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from loadtests.sending.promise_watch import PromiseWatch
from loadtests.sending.repetition import CHARS_MIN, is_repeating
from loadtests.sending.spending import Spending, Tokens, most
from loadtests.spec.guard import GuardsSpec
from probes.breaches import CLIENT_ERRORS
from probes.event import Event
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo, tally_slo

RUNAWAY_KINDS = frozenset(("runaway", "repetition", "too_long"))
BUDGETS = frozenset(("tokens", "money", "seconds"))
_EVENTS_EXTRA = 16  # an event may hold less than a token where a character is cut in two
_TOKENS_WATCHED_MIN = 128  # shorter answers are not looked at for repetition


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why nothing more is sent."""

    guard: str  # tokens, money, seconds, error_storm, runaways or slo
    detail: str


class UnderWay(Protocol):
    """A request under way, as far as a guard looks at it."""

    @property
    def events(self) -> int:
        """Events with content so far."""

    def tail(self, chars: int) -> str:
        """Return the end of what was said, where it is kept."""


class Guards:
    """One worker's guards."""

    def __init__(
        self,
        spec: GuardsSpec,
        *,
        slos: Sequence[Slo],
        choices: int = 1,
        workers: int = 1,
        seed: int = 0,
        spent: Tokens | None = None,
    ) -> None:
        self.spending = Spending(spec.to_budget(), workers=workers, spent=spent)
        self._spec, self._choices, self._seed = spec, choices, seed
        storm = spec.error_storm
        self._latest: deque[bool] = deque(maxlen=1 if storm is None else storm.of_last)
        self._runaways = 0
        self._slos = slos
        self._watched = {slo.name: PromiseWatch(slo.allowed) for slo in slos if slo.name in spec.slos}

    def watches(self, index: int, *, output_tokens: int) -> bool:
        """Whether this answer's text is kept while it comes, to see if it goes in circles."""
        share = self._spec.repeats_share
        if not share or output_tokens < _TOKENS_WATCHED_MIN:
            return False
        return random.Random(f"repeats:{self._seed}:{index}").random() < share

    def admit(self, index: int, *, body_bytes: int, output_tokens: int) -> Stop | None:
        """Count a request before it is sent; a ``Stop``: it may not be sent."""
        at_most = most(body_bytes=body_bytes, output_tokens=output_tokens, choices=self._choices)
        breach = self.spending.admit(index, at_most)
        if not breach:
            return None
        spent, reserved = self.spending.spent.total, self.spending.reserved.total
        return Stop(
            guard=breach,
            detail=f"{spent} tokens spent, at most {reserved} more under way, and the next request may take "
            f"{at_most.total}",
        )

    def look(self, exchange: UnderWay, *, output_tokens: int, is_watched: bool) -> tuple[str, str] | None:
        """Return the error kind and detail of an answer that has to be ended; asked ten times a second."""
        limit = output_tokens * self._choices + _EVENTS_EXTRA
        if exchange.events > limit:
            return "runaway", f"{exchange.events} events and no end; the limit was {output_tokens} tokens"
        if is_watched and is_repeating(tail := exchange.tail(CHARS_MIN)):
            return "repetition", f"after {exchange.events} events: ...{tail[-80:]!r}"
        return None

    def take(self, row: Request) -> Stop | None:
        """Count a request that has ended; a ``Stop``: no other may be sent."""
        self.spending.settle(row)
        return self._storm(row) or self._runaway(row) or self._slo(row)

    def _storm(self, row: Request) -> Stop | None:
        storm = self._spec.error_storm
        if storm is None or row.is_hung_up or row.error == "dropped":
            return None
        self._latest.append(row.error is not None and row.error not in CLIENT_ERRORS)
        failed = sum(self._latest)
        if len(self._latest) < storm.of_last or failed < storm.share * storm.of_last:
            return None
        return Stop(
            guard="error_storm",
            detail=f"{failed} of the last {storm.of_last} requests failed, now {row.error}",
        )

    def _runaway(self, row: Request) -> Stop | None:
        limit = self._spec.runaways_max
        self._runaways += row.error in RUNAWAY_KINDS
        if limit is None or self._runaways <= limit:
            return None
        return Stop(guard="runaways", detail=f"{self._runaways} answers did not end, {limit} may")

    def _slo(self, row: Request) -> Stop | None:
        for slo in self._slos:
            if slo.name not in self._watched or row.is_hung_up:
                continue
            watch, tally = self._watched[slo.name], tally_slo(slo, [row], self._slos)
            if watch.is_broken(is_bad=tally.certain > 0, has_failed=tally.failed > 0):
                return Stop(guard="slo", detail=f"{slo.name}: {watch.bad} of {watch.total} requests broke it")
        return None


def judge_guards(
    stops: Sequence[Event], *, spec: GuardsSpec, decided: Sequence[Finding], subject: str
) -> Finding:
    """Say whether a guard ended the run, and what that means for the verdict.

    A budget leaves the verdict to the promises in ``decided``, if each of them could be decided by then. What
    a guard against the server's own failures has ended FAILs.
    """
    guards = [str(event.data["guard"]) for event in stops]
    details = "; ".join(f"{event.data['guard']}: {event.data['detail']}" for event in stops)
    open_ones = [finding.subject for finding in decided if finding.outcome is Outcome.INCONCLUSIVE]
    if not guards:
        outcome, observed = Outcome.PASS, "no guard ended the run"
    elif any(guard not in BUDGETS for guard in guards):
        outcome, observed = Outcome.FAIL, f"ended by {details}"
    elif open_ones or not any(finding.outcome is not None for finding in decided):
        outcome = Outcome.INCONCLUSIVE
        observed = f"ended by {details}; undecided: {', '.join(open_ones) or 'nothing was promised'}"
    else:
        outcome, observed = Outcome.PASS, f"ended by {details}; every promise was decided by then"
    next_steps = {
        Outcome.PASS: "",
        Outcome.FAIL: "look at the errors table and its examples; the server did this, not the budget",
        Outcome.INCONCLUSIVE: "give it more (guards), or a shorter load with shorter answers",
    }
    return Finding(
        rule="guard",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="the load comes to its end within " + (_limits(spec) or "its guards"),
        evidence={"stops": [event.data for event in stops]},
        next_step=next_steps[outcome],
    )


def _limits(spec: GuardsSpec) -> str:
    found = [
        f"{value:g} {unit}"
        for value, unit in (
            (spec.tokens_max, "tokens"),
            (spec.money_max, "of money"),
            (spec.seconds_max, "s"),
            (spec.runaways_max, "runaway answers"),
        )
        if value is not None
    ]
    return ", ".join(found)

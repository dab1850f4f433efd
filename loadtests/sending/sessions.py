"""Requests that follow from the end of others: users in a closed loop, and conversations of several turns.

A chain is one user, or one conversation of an open loop. When its next request is due follows from the row of
the one before, the workload and the seed alone: the dispatcher and the judge compute it alike.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

from loadtests.spec.workload import Workload
from loadtests.traffic.arrivals import CHAIN_STRIDE, schedule
from loadtests.traffic.prompts import draw_size
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import pick, values_of

# A user whose request failed waits this long more: a closed loop without think time would else hammer a
# service that refuses.
FAILED_PAUSE_S = 0.1


class Chain:
    """One user or conversation: which turn comes next, and what has been said."""

    def __init__(self, workload: Workload, number: int, *, seed: int) -> None:
        self.number = number
        self.turn = 0  # counts on over a user's conversations
        self.history: list[JsonObject] = []
        self._closed, self._session = workload.arrivals.closed, workload.session
        self._seed = seed
        self._turns_left = self._draw_turns()

    @property
    def index(self) -> int:
        """Return the index of the current request."""
        return self.number * CHAIN_STRIDE + self.turn

    @property
    def is_follow_up(self) -> bool:
        """Whether something has been said in this conversation."""
        return bool(self.history)

    def _draw_turns(self) -> int:
        if self._session is None:
            return 1
        chance = random.Random(f"turns:{self._seed}:{self.number}:{self.turn}")
        return draw_size(self._session.turns, chance)

    def due_after_ns(self, row: Request) -> int | None:
        """Take the end of the current request, and return when the next is due; None: the chain is over.

        A turn that failed, or whose answer nobody waited for, ends its conversation. A user of a closed loop
        begins a new one; in an open loop that was all.
        """
        end_ns = row.t_end_ns if row.t_end_ns is not None else row.t_intended_ns
        self._turns_left = self._turns_left - 1 if row.error is None else 0
        self.turn += 1
        if self._turns_left:
            assert self._session is not None
            think = self._session.think
        else:
            self.history.clear()
            if self._closed is None or self.turn >= CHAIN_STRIDE:
                return None
            think, self._turns_left = self._closed.think, self._draw_turns()
        pause_s = think.draw_s(seed=self._seed, chain=self.number, turn=self.turn)
        return end_ns + round((pause_s + (FAILED_PAUSE_S if row.error is not None else 0.0)) * 1e9)


def judge_chains(
    workload: Workload,
    rows: Sequence[Request],
    *,
    seed: int,
    t0_ns: Mapping[int, int],
    is_early: bool,
    has_ended: bool,
    subject: str,
) -> Finding:
    """Every chain began when it should, and each next request was due as the row before it wants.

    No schedule holds these requests, so their number is not known beforehand: instead each due time is made
    again from the row before it. ``t0_ns`` is the start of each worker.
    """
    indexes = array("q", values_of(rows, "index"))
    by_index = pick(rows, array("I", sorted(range(len(indexes)), key=indexes.__getitem__)))
    chains = itertools.groupby(by_index, key=lambda row: row.index // CHAIN_STRIDE)
    here = next(chains, None)
    wanted = enumerate(schedule(workload.arrivals, duration_s=workload.duration_s, seed=seed))
    problems: list[str] = []
    count = 0
    for number, arrival in wanted:
        found: Iterator[Request] = iter(())
        first: Request | None = None
        if here is not None and here[0] == number:
            found, first = here[1], next(here[1])
        elif is_early:
            continue
        count += 1
        start_ns = 0 if first is None else t0_ns.get(first.worker, 0)
        begun_ns = start_ns + round(arrival.at_s * 1e9)
        end_ns = start_ns + round(workload.duration_s * 1e9)
        chain = Chain(workload, number, seed=seed)
        turns = found if first is None else itertools.chain((first,), found)
        problems += _problems(chain, turns, begun_ns=begun_ns, end_ns=None if is_early else end_ns)
        here = here if first is None else next(chains, None)
    while here is not None:
        problems.append(f"chain {here[0]} is in no schedule")
        here = next(chains, None)
    is_whole = has_ended and count > 0 and not problems
    observed = f"{count} chains, {len(rows)} rows"
    if not has_ended:
        observed = f"the load process ended early; {len(rows)} requests have a row"
    elif problems:
        observed += f"; {len(problems)} problems: {problems[0]}"
    return Finding(
        rule="accounting",
        subject=subject,
        outcome=Outcome.PASS if is_whole else Outcome.INCONCLUSIVE,
        observed=observed,
        expected="one row for every request that follows from the schedule and from the rows before it",
        evidence={"chains": count, "rows": len(rows), "problems": problems[:20]},
        next_step="" if is_whole else "read locust.log in the run folder, then run it again",
    )


def _problems(chain: Chain, rows: Iterable[Request], *, begun_ns: int, end_ns: int | None) -> list[str]:
    """Return what is wrong with one chain; ``end_ns`` None: it may have been broken off."""
    due_ns: int | None = begun_ns
    for row in rows:
        if row.index != chain.index:
            return [f"request {chain.index} has no row of its own"]
        if due_ns is None:
            return [f"request {row.index} follows on a chain that was over"]
        if row.t_intended_ns != due_ns:
            return [f"request {row.index} was due {(row.t_intended_ns - due_ns) / 1e6:+.3f} ms off"]
        due_ns = chain.due_after_ns(row)
    if end_ns is not None and due_ns is not None and due_ns < end_ns:
        return [f"request {chain.index} was due before the end and has no row"]
    return []

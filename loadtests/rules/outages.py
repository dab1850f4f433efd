"""When endpoints were gone, and when the whole was well again: derived from rows and the client's own marks.

The client says when it gave an endpoint up and when it took it back; since when nothing was answered there,
and from when on requests were served again, the rows say.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from loadtests.plan import ENDPOINT_BACK, ENDPOINT_LOST
from loadtests.sending.fail_over import AWAY, ENDED_BY_ENDPOINT, SILENT
from probes.breaches import CLIENT_ERRORS
from probes.event import Event
from probes.request import Request
from probes.request_columns import in_time, keep
from probes.share_test import chance_of_so_few
from probes.slo import Slo, is_good

# So rarely does a stretch look good although the lost endpoint's part still fails; many are looked at.
_CHANCE = 1e-4
_STRETCH_MIN, _STRETCH_MAX = 10, 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """An endpoint as one load process held it: given up at one time, taken back at another."""

    endpoint: str
    worker: int
    lost_ns: int
    back_ns: int | None  # None: it stayed away to the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """An endpoint that was gone, as all load processes together saw it."""

    endpoint: str
    lost_ns: int  # since when requests went unanswered there
    detected_ns: int  # the first load process gave it up
    back_ns: int | None  # the last took it back; None: one of them never did


def read_aways(events: Sequence[Event]) -> list[Away]:
    """Return what each load process said, in order of time."""
    opened: dict[tuple[str, int], int] = {}
    found: list[Away] = []
    for event in events:
        if event.kind not in (ENDPOINT_LOST, ENDPOINT_BACK):
            continue
        who = (str(event.data["endpoint"]), int(event.data["worker"]))
        at_ns = int(event.data["at_ns"])
        if event.kind == ENDPOINT_LOST:
            opened[who] = at_ns
        elif who in opened:
            found.append(Away(endpoint=who[0], worker=who[1], lost_ns=opened.pop(who), back_ns=at_ns))
    found += [
        Away(endpoint=name, worker=worker, lost_ns=at_ns, back_ns=None)
        for (name, worker), at_ns in opened.items()
    ]
    return sorted(found, key=lambda away: away.lost_ns)


def find_outages(aways: Sequence[Away], requests: Sequence[Request]) -> list[Outage]:
    """Return the outages of each endpoint: what several load processes saw at one time is one of them."""
    found: list[Outage] = []
    for name in dict.fromkeys(away.endpoint for away in aways):
        rows = keep(requests, "endpoint_name", where=partial(operator.eq, name))
        joined: list[list[Away]] = []
        for away in (away for away in aways if away.endpoint == name):
            if joined and any(one.back_ns is None or away.lost_ns <= one.back_ns for one in joined[-1]):
                joined[-1].append(away)
            else:
                joined.append([away])
        found += [_outage(name, group, rows) for group in joined]
    return sorted(found, key=lambda outage: outage.lost_ns)


def _outage(name: str, aways: Sequence[Away], rows: Sequence[Request]) -> Outage:
    backs = [away.back_ns for away in aways]
    return Outage(
        endpoint=name,
        lost_ns=min(_unanswered_since_ns(away, rows) for away in aways),
        detected_ns=aways[0].lost_ns,
        back_ns=None if None in backs else max(back for back in backs if back is not None),
    )


def _unanswered_since_ns(away: Away, rows: Sequence[Request]) -> int:
    """Return when the first of the failures that made a load process give up began to be one."""
    ended = sorted(
        (row for row in rows if row.worker == away.worker and row.t_end_ns is not None),
        key=lambda row: row.t_end_ns or 0,
    )
    since_ns = away.lost_ns
    for row in reversed([row for row in ended if (row.t_end_ns or 0) <= away.lost_ns]):
        if row.error in AWAY:
            since_ns = min(since_ns, _last_sign_ns(row))
        elif row.error not in SILENT:
            break
    return since_ns


def _last_sign_ns(row: Request) -> int:
    """Return when a failed request was cut off; of one that nobody ended, the last sign of life."""
    if row.error in ENDED_BY_ENDPOINT and row.t_end_ns is not None:
        return row.t_end_ns
    return row.t_last_ns or row.t_sent_ns or row.t_intended_ns


def is_of_outage(row: Request, outages: Sequence[Outage]) -> bool:
    """Whether a request failed because its endpoint was gone: it was under way or begun while it was."""
    if row.error not in AWAY or row.t_end_ns is None:
        return False
    return any(
        outage.endpoint == row.endpoint_name
        and outage.lost_ns <= row.t_end_ns
        and (outage.back_ns is None or _last_sign_ns(row) <= outage.back_ns)
        for outage in outages
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What became of the whole after one outage."""

    outage: Outage
    recovered_ns: int | None  # None: not seen
    lost: int  # of the requests under way between the loss and the recovery, those that were not good
    of: int
    is_seen: bool  # whether enough came afterwards to say that it did not recover
    was_good: bool  # before


def find_recovery(
    outage: Outage,
    requests: Sequence[Request],
    *,
    slos: Sequence[Slo],
    objective: float,
    part: float,
    until_ns: int,
    deadline_ns: int,
) -> Recovery:
    """Find the first stretch of good requests after an endpoint was lost, of all that arrived until a time.

    ``part`` of the arrivals are the lost endpoint's. A stretch may hold as many bad ones as ``objective``
    allows, at most half that part, and is so long that it tells this from the whole part. It may begin among
    the bad ones; the recovery is where their share changed.
    """
    told = keep(
        requests, "is_hung_up", "error", where=lambda is_hung_up, e: not is_hung_up and e not in CLIENT_ERRORS
    )
    rows = in_time(told)
    allowed = min(1 - objective, part / 2)
    length = stretch_length(part, allowed=allowed)
    bad_max = math.floor(allowed * length + 1e-9)
    before = [not is_good(row, slos) for row in rows if row.t_intended_ns < outage.lost_ns]
    later = keep(rows, "t_intended_ns", where=lambda due_ns: outage.lost_ns <= due_ns < until_ns)
    bad = [not is_good(row, slos) for row in later]
    start = _first_stretch(bad, length, bad_max)
    recovered_ns = None
    if start is not None:
        change = _change(bad[: start + length], limit=(allowed + part) / 2)
        recovered_ns = later[min(change, start + length - 1)].t_intended_ns
    end_ns = until_ns if recovered_ns is None else recovered_ns
    between = keep(
        rows,
        "t_intended_ns",
        "t_end_ns",
        where=lambda due_ns, t_end_ns: due_ns < end_ns and (t_end_ns or due_ns) >= outage.lost_ns,
    )
    return Recovery(
        outage=outage,
        recovered_ns=recovered_ns,
        lost=sum(not is_good(row, slos) for row in between),
        of=len(between),
        is_seen=sum(row.t_intended_ns > deadline_ns for row in later) >= length,
        was_good=len(before) < length or _first_stretch(before, length, bad_max) is not None,
    )


def stretch_length(part: float, *, allowed: float) -> int:
    """Return how many requests in a row tell a share that is allowed from one where ``part`` of them fail."""
    return next(
        (
            length
            for length in range(_STRETCH_MIN, _STRETCH_MAX)
            if chance_of_so_few(math.floor(allowed * length + 1e-9), length, allowed=part) <= _CHANCE
        ),
        _STRETCH_MAX,
    )


def _change(bad: Sequence[bool], *, limit: float) -> int:
    """Return from where on the share of bad ones is below a limit, when before it was above."""
    level = highest = 0.0
    found = 0
    for place, is_bad in enumerate(bad):
        level += is_bad - limit
        if level > highest:
            highest, found = level, place + 1
    return found


def _first_stretch(bad: Sequence[bool], length: int, bad_max: int) -> int | None:
    """Return where the first stretch begins that is good; None: there is none."""
    count = sum(bad[:length])
    for start in range(len(bad) - length + 1):
        if count <= bad_max and not bad[start]:
            return start
        count -= bad[start]
        count += bad[start + length] if start + length < len(bad) else False
    return None

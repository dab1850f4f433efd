"""What a game day on its own way to the API saw of the cluster, and what not: pure functions over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from experiments.impact.recovery import Detection, FaultSeen, Times
from experiments.kube.watching.samples import API_ASK_S, API_SERIES, OF_API
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

_UNDER_WAY_NS = round(1e9 * API_ASK_S)  # no call of the watch takes longer
SLOW_MS = 1000.0  # that one call may take, by Kubernetes' own service level of its API


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A stretch in which no call to the API was answered."""

    start_ns: int  # of the first call without an answer
    end_ns: int | None  # of the next answer; None: none came

    def lasted_s(self, until_ns: int) -> float:
        """How long it lasted, at most until then."""
        return ((until_ns if self.end_ns is None else self.end_ns) - self.start_ns) / 1e9


def is_on_way(fault: FaultSeen) -> bool:
    """Say whether a fault was on our own way to the API."""
    return str(fault.data["fault"]).startswith(OF_API)


def end_of_call(row: JsonObject) -> int:
    """Return when a call of the watch was over."""
    return int(row["t_ns"]) + round(1e6 * float(row["took_ms"]))


def find_unseen(rows: Sequence[JsonObject]) -> list[Unseen]:
    """Return each stretch of calls without an answer, in order."""
    found: list[Unseen] = []
    start_ns: int | None = None
    for row in sorted(rows, key=lambda row: int(row["t_ns"])):
        if not row["is_answered"]:
            start_ns = int(row["t_ns"]) if start_ns is None else start_ns
        elif start_ns is not None:
            found.append(Unseen(start_ns=start_ns, end_ns=end_of_call(row)))
            start_ns = None
    return found if start_ns is None else [*found, Unseen(start_ns=start_ns, end_ns=None)]


def noticed_by_watch(times: Times, rows: Sequence[JsonObject]) -> Times:
    """Have our own watch notice what it saw: a call without an answer, or one that took too long."""
    later = [row for row in rows if end_of_call(row) >= times.t_inject_ns]
    bad = [end_of_call(row) for row in later if not row["is_answered"] or row["took_ms"] > SLOW_MS]
    if not bad or (times.detection is not None and times.detection.t_ns <= min(bad)):
        return times
    return replace(times, detection=Detection(t_ns=min(bad), by="our own watch of the API"))


def judge_sight(
    faults: Sequence[FaultSeen], rows: Sequence[JsonObject], *, subject: str, recovery_s: float
) -> list[Finding]:
    """Tell what was not seen of the cluster; nothing at all is said where no fault was on our own way.

    What lies within the fault is its doing. What does not, nobody can explain: it is no pass.
    """
    ours = [fault for fault in faults if is_on_way(fault)]
    if not ours:
        return []
    unseen, last_ns = find_unseen(rows), max((end_of_call(row) for row in rows), default=0)
    outcome, observed, next_step = _decide(ours, rows, unseen, last_ns, recovery_s)
    stretches = [{"start_ns": u.start_ns, "end_ns": u.end_ns, "s": u.lasted_s(last_ns)} for u in unseen]
    return [
        Finding(
            rule="sight",
            subject=subject,
            outcome=outcome,
            observed=observed,
            expected=f"unseen only while the fault lasts, and seen again within {recovery_s:g} s",
            unit="s",
            evidence={"unseen": stretches, "series": API_SERIES},
            next_step=next_step,
        )
    ]


def _decide(
    ours: Sequence[FaultSeen],
    rows: Sequence[JsonObject],
    unseen: Sequence[Unseen],
    last_ns: int,
    recovery_s: float,
) -> tuple[Outcome, str, str]:
    total_s = sum(stretch.lasted_s(last_ns) for stretch in unseen)
    told = f"the cluster was not seen for {total_s:.1f} s"
    ends = [fault.t_undone_ns for fault in ours]
    if None in ends:
        return Outcome.INCONCLUSIVE, f"{told}; the fault was never undone", "overproof gameday undo"
    over_ns = max(end for end in ends if end is not None)
    after = [end_of_call(row) for row in rows if row["is_answered"] and int(row["t_ns"]) >= over_ns]
    if not after:
        watched_s = max(0.0, (last_ns - over_ns) / 1e9)
        outcome = Outcome.FAIL if watched_s >= recovery_s else Outcome.INCONCLUSIVE
        return outcome, f"{told}; no answer in {watched_s:.1f} s after the fault", "is the API well?"
    back_s = (min(after) - over_ns) / 1e9
    if back_s > recovery_s:
        return Outcome.FAIL, f"{told}; seen again only {back_s:.1f} s after the fault", "is the API well?"
    if strange := [stretch for stretch in unseen if not _is_within(stretch, ours)]:
        strange_s = sum(stretch.lasted_s(last_ns) for stretch in strange)
        observed = f"{told}, {strange_s:.1f} s of them not by the fault"
        return Outcome.INCONCLUSIVE, observed, "was the API well? repeat the game day"
    held = "" if not unseen else ", all by the fault: what it did then is known from before and after alone"
    return Outcome.PASS, f"{told}{held}; seen again {back_s:.1f} s after the fault", ""


def _is_within(stretch: Unseen, faults: Sequence[FaultSeen]) -> bool:
    """Say whether calls without an answer began while a fault lasted, or were under way when it came."""
    return any(
        fault.t_inject_ns - _UNDER_WAY_NS <= stretch.start_ns <= (fault.t_undone_ns or 0) for fault in faults
    )

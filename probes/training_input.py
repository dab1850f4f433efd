"""Whether a training job is fed: what share of its steps it waits for data, and how busy its GPUs are.

Waiting for data names the cause; low utilisation alone does not, and is never called starving: a job may as
well wait for a slow rank, the network or Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.training_step import Step

WAIT_SHARE_MAX = 0.2
UTILISATION_MIN_PCT = 80.0
STEPS_MIN = 10
SAMPLES_MIN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is known of a job's input over a stretch of time."""

    wait_share: float | None  # of its step time; None: the log does not say
    utilisation_pct: float | None  # mean of its GPUs; None: nobody could read it
    steps: int
    samples: int
    why_unread: str = ""  # why there is no utilisation


def find_feed(rows: Sequence[Step], utilisation_pct: Sequence[float], *, why_unread: str = "") -> Feed:
    """Sum up steps and samples of utilisation.

    The share is that of the time that the steps account for themselves; of a log that gives only the wait,
    that of the time from step to step.
    """
    waits = [row.data_wait_s for row in rows if row.data_wait_s is not None]
    busy_s = sum(_whole_s(rows))
    share = min(1.0, sum(waits) / busy_s) if waits and busy_s > 0 else None
    return Feed(
        wait_share=share,
        utilisation_pct=fmean(utilisation_pct) if utilisation_pct else None,
        steps=len(waits),
        samples=len(utilisation_pct),
        why_unread=why_unread,
    )


def _whole_s(rows: Sequence[Step]) -> list[float]:
    last: dict[int, int] = {}
    found = []
    for row in sorted((row for row in rows if row.data_wait_s is not None), key=lambda row: row.t_ns):
        since = last.get(row.rank)
        last[row.rank] = row.t_ns
        if row.busy_s is not None:
            found.append(row.busy_s)
        elif since is not None:
            found.append((row.t_ns - since) / 1e9)
        else:
            found.append(row.data_wait_s or 0.0)  # nothing before it tells how long the whole step took
    return found


def judge_input(
    feed: Feed,
    *,
    subject: str,
    wait_share_max: float = WAIT_SHARE_MAX,
    utilisation_min_pct: float = UTILISATION_MIN_PCT,
) -> Finding:
    """A job that waits for data is starved; one whose GPUs idle for a reason that nobody knows is open."""
    is_wait_known = feed.wait_share is not None and feed.steps >= STEPS_MIN
    is_use_known = feed.utilisation_pct is not None and feed.samples >= SAMPLES_MIN
    is_idle = is_use_known and (feed.utilisation_pct or 0.0) < utilisation_min_pct
    is_starved = is_wait_known and (feed.wait_share or 0.0) > wait_share_max
    used = f"utilisation {feed.utilisation_pct:.0f}%" if is_use_known else _unused(feed)
    waits = f"waits for data {feed.wait_share:.0%} of its step time" if is_wait_known else _unsaid(feed)
    next_step = ""
    if is_starved:
        outcome, observed = Outcome.FAIL, f"starving input: {waits}; {used}"
        next_step = "look at what feeds it: storage, loader processes, prefetching"
    elif is_wait_known:
        outcome, observed = Outcome.PASS, f"{waits}; {used}{', for another cause' if is_idle else ''}"
    elif is_idle:
        outcome, observed = Outcome.INCONCLUSIVE, f"low {used}, and the cause is not known: {waits}"
        next_step = "have the job log what it waits for data, and name that key (data_wait_s)"
    elif is_use_known:
        outcome, observed = Outcome.PASS, f"{used}; {waits}"
    else:
        outcome, observed = Outcome.INCONCLUSIVE, f"{waits}; {used}"
        next_step = "have the job log what it waits for data, or look where its GPUs are"
    return Finding(
        rule="input",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"waits for data at most {wait_share_max:.0%}, or utilisation of {utilisation_min_pct:g}%",
        unit="share",
        evidence=_evidence(feed),
        next_step=next_step,
    )


def _unused(feed: Feed) -> str:
    if feed.why_unread:
        return f"utilisation not known ({feed.why_unread})"
    return f"utilisation not known ({feed.samples} samples)"


def _unsaid(feed: Feed) -> str:
    if feed.steps:
        return f"only {feed.steps} steps say what they wait for data"
    return "no step says what it waits for data"


def _evidence(feed: Feed) -> JsonObject:
    return {
        "data_wait_share": feed.wait_share,
        "utilisation_pct": feed.utilisation_pct,
        "steps": feed.steps,
        "samples": feed.samples,
    }

"""When the site's own alerts noticed a fault: pure functions over what Alertmanager was seen to say.

An alert has the start that Prometheus gave it, on the clock of another machine. How far that clock is off is
bounded by the ``Date`` of every answer: it had that second on it while we waited. Only an alert that surely
began after the injection counts, and only one that surely came in time passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiments.impact.recovery import Detection
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run
from reports.table import read_series

SERIES = "alerts"  # one row per question
SEEN_EVENT = "alert.seen"  # an alert that matches, the first time that it is in an answer
GONE_EVENT = "alert.gone"
# An alert lasts for at least one evaluation of its rule, 15 s or more as Prometheus is usually set: one that
# came and went unseen needs a silence of ours of about that length.
SILENCE_S_MAX = 10.0
DRIFT_NS = 50_000_000  # by which two synchronised clocks may part in two minutes
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """Which alerts have to notice a fault."""

    url: str
    filters: tuple[str, ...]
    within_s: float
    every_s: float = 1.0
    timeout_s: float = 3.0
    authorization_env: str = ""  # empty: Alertmanager wants none

    @property
    def silence_s_max(self) -> float:
        """How long may pass between two answers before an alert could have been missed."""
        return max(SILENCE_S_MAX, 3 * self.every_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """By how much the clock of Alertmanager's machine is ahead of ours, within bounds."""

    low_ns: int
    high_ns: int

    def __str__(self) -> str:
        half_s = (self.high_ns - self.low_ns) / 2e9
        return f"{(self.low_ns + self.high_ns) / 2e9:+.2f} s ± {half_s:.2f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """One alert, its start on our clock."""

    low_ns: int
    high_ns: int
    name: str
    labels: str
    state: str  # active, or suppressed: it fired, and nobody was told
    t_seen_ns: int

    @property
    def t_ns(self) -> int:
        """The middle of what is known of its start."""
        return (self.low_ns + self.high_ns) // 2

    def __str__(self) -> str:
        suppressed = ", suppressed: nobody was told" if self.state == "suppressed" else ""
        return f"alert {self.name}{f' ({self.labels})' if self.labels else ''}{suppressed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsSeen:
    """What a game day saw of the site's alerts."""

    wanted: Alerts
    rows: tuple[JsonObject, ...]  # one per question
    alerts: tuple[JsonObject, ...]  # data of ``alert.seen``, with ``t_seen_ns``

    @property
    def answers(self) -> list[JsonObject]:
        """The questions that were answered."""
        return [row for row in self.rows if row["is_answered"]]


def read_alerts(run: Run) -> AlertsSeen | None:
    """Read what a run saw of the site's alerts; None: it was not to look."""
    told = run.header.spec.get("alerts")
    if not told:
        return None
    return AlertsSeen(
        wanted=Alerts(**(told | {"filters": tuple(told["filters"])})),
        rows=tuple(read_series(run, SERIES)),
        alerts=tuple(event.data | {"t_seen_ns": event.t_ns} for event in run.events_of(SEEN_EVENT)),
    )


def find_skew(answers: Sequence[JsonObject]) -> Skew | None:
    """Bound the skew by all answers together; None: there is none, or that clock was set meanwhile."""
    if not answers:
        return None
    dates = [(int(row["date_s"]) * _SECOND_NS, int(row["t_sent_ns"]), int(row["t_ns"])) for row in answers]
    low_ns = max(date_ns - t_head_ns for date_ns, _, t_head_ns in dates) - DRIFT_NS
    high_ns = min(date_ns + _SECOND_NS - t_sent_ns for date_ns, t_sent_ns, _ in dates) + DRIFT_NS
    return Skew(low_ns=low_ns, high_ns=high_ns) if low_ns <= high_ns else None


def find_fired(seen: AlertsSeen, t_inject_ns: int) -> list[Fired]:
    """Return the alerts that may have begun after the injection, the earliest first."""
    skew = find_skew(seen.answers)
    if skew is None:
        return []
    fired = [_fired(alert, skew) for alert in seen.alerts if alert["t_seen_ns"] >= t_inject_ns]
    return sorted((f for f in fired if f.high_ns >= t_inject_ns), key=lambda f: (f.t_ns, f.name))


def _fired(alert: JsonObject, skew: Skew) -> Fired:
    started_ns, seen_ns = int(alert["starts_at_ns"]), int(alert["t_seen_ns"])
    low_ns = started_ns - skew.high_ns
    labels = {key: value for key, value in alert["labels"].items() if key != "alertname"}
    return Fired(
        low_ns=low_ns,
        high_ns=max(low_ns, min(started_ns - skew.low_ns, seen_ns)),  # it was not seen before it began
        name=str(alert["labels"].get("alertname", "without a name")),
        labels=", ".join(f"{key}={value}" for key, value in sorted(labels.items())),
        state=str(alert["state"]),
        t_seen_ns=seen_ns,
    )


def find_detection(seen: AlertsSeen, t_inject_ns: int) -> Detection | None:
    """Return the earliest alert that surely began after the injection."""
    sure = [fired for fired in find_fired(seen, t_inject_ns) if fired.low_ns >= t_inject_ns]
    return Detection(t_ns=sure[0].t_ns, by=f"the site's {sure[0]}") if sure else None


def judge_alerts(seen: AlertsSeen, t_inject_ns: int, *, subject: str, moments: JsonObject) -> Finding:
    """The site's own alerts have to notice the fault, in time."""
    outcome, observed, next_step = _decide(seen, t_inject_ns)
    skew, before = find_skew(seen.answers), _before(seen, t_inject_ns)
    if before:
        observed += f"; {before} that fired before the fault did not count"
    if skew is not None:
        observed += f"; the clock there is {skew} against ours, corrected"
    return Finding(
        rule="detection",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=f"an alert with {' and '.join(seen.wanted.filters)} within {seen.wanted.within_s:g} s",
        unit="s",
        evidence=moments
        | {"asked": len(seen.rows), "answered": len(seen.answers), "alerts": list(seen.alerts)[:20]}
        | {"skew_ns": None if skew is None else [skew.low_ns, skew.high_ns]},
        next_step=next_step,
    )


def _before(seen: AlertsSeen, t_inject_ns: int) -> int:
    skew = find_skew(seen.answers)
    return sum(
        alert["t_seen_ns"] < t_inject_ns or (skew is not None and _fired(alert, skew).high_ns < t_inject_ns)
        for alert in seen.alerts
    )


def _decide(seen: AlertsSeen, t_inject_ns: int) -> tuple[Outcome, str, str]:
    answers = seen.answers
    if not answers:
        last = next((str(row["error"]) for row in reversed(seen.rows) if row["error"]), "nobody asked")
        reach = f"see that {seen.wanted.url} can be reached from here, and repeat the day"
        return Outcome.INCONCLUSIVE, f"Alertmanager could not be asked: {last}", reach
    if find_skew(answers) is None:
        set_it = "the clock of Alertmanager's machine was set in between: see its NTP, and repeat the day"
        return Outcome.INCONCLUSIVE, "the Date of its answers fits no one offset to our clock", set_it
    fired = find_fired(seen, t_inject_ns)
    sure = [f for f in fired if f.low_ns >= t_inject_ns]
    if sure:
        return _in_time(sure, t_inject_ns, seen.wanted.within_s)
    unsure = "synchronise the clocks of this machine and of Prometheus, or ask more often (every_s)"
    if fired:
        return Outcome.INCONCLUSIVE, f"{fired[0]} began within clock error of the injection", unsure
    if gap := _silence(seen, t_inject_ns):
        return (
            Outcome.INCONCLUSIVE,
            f"none was seen, but {gap}",
            "see the rows `alerts` for why it fell silent",
        )
    rule = "write or mend the alert that should have fired: its expression, its `for`, the labels it matches"
    return Outcome.FAIL, f"none fired within {seen.wanted.within_s:g} s of the fault", rule


def _in_time(sure: Sequence[Fired], t_inject_ns: int, within_s: float) -> tuple[Outcome, str, str]:
    first = sure[0]
    after_s = (first.t_ns - t_inject_ns) / 1e9
    deadline_ns = t_inject_ns + round(within_s * 1e9)
    if any(fired.high_ns <= deadline_ns for fired in sure):
        return Outcome.PASS, f"noticed after {after_s:.2f} s by the site's {first}", ""
    if all(fired.low_ns > deadline_ns for fired in sure):
        rule = "shorten the alert's `for`, its window or the interval at which the rule is evaluated"
        return Outcome.FAIL, f"noticed only after {after_s:.2f} s by the site's {first}", rule
    unsure = "synchronise the clocks, or state a within_s that is not decided by their error"
    return Outcome.INCONCLUSIVE, f"noticed after about {after_s:.2f} s by the site's {first}", unsure


def _silence(seen: AlertsSeen, t_inject_ns: int) -> str:
    """Say where an alert could have been missed; empty: nowhere."""
    end_ns = t_inject_ns + round(seen.wanted.within_s * 1e9)
    for since_ns, until_ns in _gaps([int(row["t_ns"]) for row in seen.answers], t_inject_ns, end_ns):
        if until_ns - since_ns > seen.wanted.silence_s_max * 1e9:
            where_s = (since_ns - t_inject_ns) / 1e9
            return (
                f"Alertmanager was not heard for {(until_ns - since_ns) / 1e9:.1f} s from {where_s:+.1f} s on"
            )
    last_s = (max(int(row["t_ns"]) for row in seen.answers) - t_inject_ns) / 1e9
    return "" if last_s >= seen.wanted.within_s else f"it was watched for {max(0.0, last_s):.1f} s only"


def _gaps(heard_ns: Sequence[int], start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
    inside = [start_ns, *(t_ns for t_ns in sorted(heard_ns) if start_ns < t_ns < end_ns)]
    if max(heard_ns) >= end_ns:
        inside.append(end_ns)
    yield from itertools.pairwise(inside)
